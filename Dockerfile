# GPU runs: docker run --gpus all -v $PWD:/work emotion-pipeline pipeline train --model mesm --top-p 0.5
# The NVIDIA driver comes from the host; CUDA itself is in torch's and spconv's wheels.
FROM python:3.12-slim-bookworm

# make and a compiler are what `make install` needs beside Python; git is not.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make=4.* gcc=4:12.* g++=4:12.* \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/emotion-pipeline
COPY pyproject.toml requirements.lock requirements-cuda.lock Makefile README.md ./
COPY pipeline pipeline
COPY data_tools data_tools
COPY models models
COPY configs configs
RUN make install EXTRAS=cuda

ENV PATH=/opt/emotion-pipeline/.venv/bin:$PATH
WORKDIR /work
CMD ["pipeline", "--help"]
