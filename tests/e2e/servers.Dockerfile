# Stands in for the images redis and prom/prometheus, with the servers that Debian packages.
ARG BASE
FROM ${BASE} AS redis
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/*

FROM ${BASE} AS prometheus
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["prometheus"]
