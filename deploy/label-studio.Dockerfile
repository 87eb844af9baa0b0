# Label Studio in the very version that Preceptor is tested against.
FROM python:3.11-slim
ARG VERSION=1.23.2
RUN pip install --no-cache-dir "label-studio==${VERSION}" \
    && useradd --create-home --uid 1001 studio \
    && install --directory --owner=studio /data
USER studio
VOLUME /data
EXPOSE 8080
CMD ["label-studio", "start", "--no-browser", "--internal-host", "0.0.0.0", "--port", "8080", "--log-level", "WARNING"]
