# docker build -t transientnet . && docker run --rm -v "$PWD:/data:ro" transientnet score night/ > scores.csv
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE weights_manifest.json ./
COPY transientnet transientnet
RUN python -m venv /opt/transientnet && /opt/transientnet/bin/pip install --no-cache-dir ".[parquet,fast]"

FROM python:3.12-slim
COPY --from=build /opt/transientnet /opt/transientnet
RUN useradd --create-home --uid 10001 observer
USER observer
ENV PATH=/opt/transientnet/bin:$PATH TRANSIENTNET_OFFLINE=1
WORKDIR /data
ENTRYPOINT ["transientnet"]
CMD ["--help"]
