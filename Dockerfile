# syntax=docker/dockerfile:1
# Capstan's images, a target each: docker build --target operator|broker|sidecar|example-orders --tag capstan/TARGET:VERSION .

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# rust-toolchain.toml also asks for rustfmt and clippy, which nothing needs here.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
# One build for all targets: they share most dependencies.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release \
      --package capstan-operator --package capstan-broker --package capstan-sidecar --package example-orders \
 && mkdir /programs \
 && cp target/release/capstan-operator target/release/capstan-broker target/release/capstan-sidecar \
      target/release/example-orders /programs/

# glibc and certificates, no shell; of the same Debian as the build, so that glibc is the same too.
FROM gcr.io/distroless/cc-debian12:nonroot AS base
ENV PATH=/usr/local/bin:/usr/bin:/bin
USER 65532:65532

FROM base AS operator
COPY --from=build /programs/capstan-operator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/capstan-operator"]

FROM base AS broker
COPY --from=build /programs/capstan-broker /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/capstan-broker"]

FROM base AS sidecar
# Memory that large bodies took goes back at once, instead of staying in an arena of each thread: a third of the peak.
ENV MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=131072
COPY --from=build /programs/capstan-sidecar /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/capstan-sidecar"]

FROM base AS example-orders
COPY --from=build /programs/example-orders /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/example-orders"]
