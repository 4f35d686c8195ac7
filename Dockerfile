# The image of Auspex: the program, the libraries that it links to, and the models of this folder.
#
#   docker build -t auspex .
#   docker run --read-only -p 8080:8080 -v auspex:/data auspex
#
# Your own models: a folder mounted at /models, or an image `FROM auspex` with `COPY models /models`.
# Settings: auspex.toml mounted in /etc/auspex, or variables such as AUSPEX__SERVER__PUBLIC_URL.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin auspex && \
    deploy/image-root target/dist/auspex models /image

FROM scratch
COPY --from=build /image /
# A volume that is made new takes its owner from here.
COPY --from=build --chown=65532:65532 --chmod=700 /image/data /data
ENV PATH=/usr/bin \
    AUSPEX__SERVER__LISTEN=0.0.0.0:8080 \
    AUSPEX__SERVER__DATA_DIR=/data \
    AUSPEX__INFERENCE__MODELS=/models \
    SQLITE_TMPDIR=/data
# Where auspex.toml is looked for.
WORKDIR /etc/auspex
USER 65532:65532
VOLUME /data
EXPOSE 8080
# `docker stop` waits ten seconds: allow what server.drain_timeout_ms does, by `docker stop -t 40`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/bin/auspex", "health"]
ENTRYPOINT ["/usr/bin/auspex"]
CMD ["serve"]
