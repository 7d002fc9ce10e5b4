# Small, without root, on the CPU. To score a folder, and to serve to a pipeline on the same machine:
#   docker build -t transientnet .
#   docker run --rm -v "$PWD:/data:ro" transientnet score night/ > scores.csv
#   docker run --rm -v "$PWD/token:/run/token:ro" -p 127.0.0.1:8766:8766 transientnet \
#       serve --host 0.0.0.0 --port 8766 --token-file /run/token
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE weights_manifest.json ./
COPY transientnet transientnet
RUN python -m venv /opt/transientnet && /opt/transientnet/bin/pip install --no-cache-dir ".[parquet,fast,serve]"

FROM python:3.12-slim
COPY --from=build /opt/transientnet /opt/transientnet
RUN useradd --create-home --uid 10001 observer
USER observer
ENV PATH=/opt/transientnet/bin:$PATH TRANSIENTNET_OFFLINE=1
WORKDIR /data
ENTRYPOINT ["transientnet"]
CMD ["--help"]
