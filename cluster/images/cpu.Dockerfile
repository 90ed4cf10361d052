# A Ray node without a GPU. Built from the top of the checkout:
#   docker build -f cluster/images/cpu.Dockerfile -t registry.example.com/hbtrain:0.2.0-cpu .
FROM rayproject/ray:2.60.0-py311-cpu

WORKDIR /opt/hbtrain
COPY pyproject.toml README.md LICENSE cluster/images/cpu.lock ./
COPY hbtrain ./hbtrain
COPY tune ./tune

# PyTorch's own index has the build without CUDA, some gigabytes smaller. All else is what the lock's hashes say.
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --no-deps --no-build-isolation --require-hashes --requirement cpu.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER 1000
ENV DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0
