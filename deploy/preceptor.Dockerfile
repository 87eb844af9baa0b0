# Preceptor with Label Studio's client and PostgreSQL's driver; the build context is the repository.
FROM python:3.11-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt torch --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir --constraint constraints.txt '.[label-studio,postgresql]' \
    && useradd --create-home --uid 1001 preceptor
USER preceptor
WORKDIR /project
EXPOSE 8097
ENTRYPOINT ["preceptor"]
