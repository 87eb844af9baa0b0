# Preceptor with Label Studio's client and PostgreSQL's driver; the build context is the repository.
FROM python:3.11-slim
WORKDIR /src
COPY . .
# Every file is checked against its hash but torch's, which comes as one build or another, those of the few packages that
# only torch needs, and setuptools, which builds ours.
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock \
    && pip install --no-cache-dir --constraint constraints.txt torch \
    && pip install --no-cache-dir --no-deps . \
    && useradd --create-home --uid 1001 preceptor \
    && install --directory --owner=preceptor /home/preceptor/.cache
USER preceptor
WORKDIR /project
EXPOSE 8097
ENTRYPOINT ["preceptor"]
