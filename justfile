# Every habit as one word. `just` lists them.

measurements := env("TJERN_MEASUREMENTS", if path_exists("../shared/data") == "true" { canonicalize("../shared/data") } else { "" })

[private]
default:
    @just --list --unsorted

# The demo city, or with arguments a real one: just up --config city.toml
up *arguments:
    cargo run -- up {{ arguments }}

# What is quick: formatting and the compiler
check:
    cargo fmt --all --check
    cargo check --workspace --all-targets --locked

# Format all of it
fmt:
    cargo fmt --all

# Clippy; no warning is left
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests, with one build
test *arguments:
    cargo test --workspace {{ arguments }}

# What CI runs
ci:
    bash .ci/run

# Beside programs that are not ours: tests/peers/README.md
peers *arguments:
    TJERN_MEASUREMENTS="{{ measurements }}" tests/peers/run {{ arguments }}

# Benchmarks of the package `tjern`: docs/measurements.md
bench *arguments:
    cargo bench -p tjern {{ arguments }}

# The gateway on a disk of four megabytes that fills up (needs root or a user namespace, else it says that it skips),
# killed fifty times, and its spool on over 5,000 crash images
crash:
    cargo test -p tjern-gateway --test small_disk --test kill -- --nocapture
    cargo test -p tjern-gateway --lib -- --nocapture every_boundary skips_a_sync without_a_sync error_at_any_call overlooks_an_error

# What ingest costs, a second and as history grows: docs/measurements.md (sizes: pipeline/benches/ingest.rs)
bench-ingest *arguments:
    cargo bench -p tjern-pipeline --bench ingest -- {{ arguments }}

# What a step of each job costs as history grows ten- and a hundredfold: docs/measurements.md (sizes: pipeline/benches/growth.rs)
bench-growth *arguments:
    cargo bench -p tjern -p tjern-pipeline --bench growth -- {{ arguments }}

# Points a second of quality control beside ioos_qc, and its flags (the peers' ioos_qc): docs/measurements.md
bench-quality *arguments:
    TJERN_PROFILE=bench tests/peers/quality/run --points 1000000 --rounds 3 {{ arguments }}

# A year rolled up, one late reading, and a query with and without commits since, beside DuckDB: docs/measurements.md (sizes: pipeline/benches/rollup.rs)
bench-rollup *arguments:
    benches/rollup/run {{ arguments }}

# What a day of one and of a hundred gateways costs at a cloud, and how soon what lands can be queried
bill:
    cargo test -p tjern --test bill -- --nocapture

# What the spool writes and how fast it starts: docs/measurements.md
bench-spool:
    cargo bench -p tjern-gateway --bench spool

# The gateway as a tarball and a .deb: docs/gateway-operations.md
dist:
    dist/build

# The gateway's systemd unit, held against systemd-analyze
unit:
    dist/check-unit

# Size of the slim gateway, and what it takes while it idles: docs/measurements.md
measure-idle *arguments:
    benches/gateway-idle {{ arguments }}

# A million polls over bad lines: TJERN_FAULTS_SEED plays one seed, TJERN_FAULTS_SEEDS and TJERN_FAULTS_FIRST more or others
faults:
    cargo test -p tjern-gateway --lib faults:: -- --nocapture

# A thousand lives of the pipeline over a store that fails, and every store against the rules: TJERN_STORM_SEED plays one seed,
# TJERN_STORM_SEEDS and TJERN_STORM_FIRST more or others
storms:
    TJERN_STORM_SEEDS="${TJERN_STORM_SEEDS:-1000}" cargo test --workspace --test storms --test stores -- --nocapture

# 10,000 points a second: memory and CPU beside libmodbus and pymodbus (needs libmodbus-dev, and the peers' pymodbus and moto)
bench-gateway *arguments: _release-gateway
    python3 -B benches/gateway/tcp.py --gateway "${CARGO_TARGET_DIR:-target}/release/tjern-gateway" --python "${CARGO_TARGET_DIR:-target}/peers-venv/bin/python" --s3-python "${CARGO_TARGET_DIR:-target}/peers-s3-venv/bin/python" {{ arguments }}

# Compaction's rows a second and peak memory beside DuckDB and Polars on the same files; `just bench-compact core` is built in a minute: docs/measurements.md
bench-compact *arguments:
    benches/compact/run {{ arguments }}

# Two queries over a river's points, laid out in many ways, beside DuckDB and ClickHouse: docs/decisions/0027
bench-queries *arguments:
    benches/layout/run {{ arguments }}

# Bytes per reading and speed of each way to write each column, per family of sensors: docs/decisions/0017
bench-layout *arguments:
    cd benches/layout && cargo run --release -- {{ arguments }}

# Bytes per reading beside plain Parquet, DuckDB and ClickHouse, and how fast ours are written: docs/measurements.md
bench-sizes:
    TJERN_MEASUREMENTS="{{ measurements }}" benches/layout/sizes

# How much of a serial line is used, from 9,600 to 115,200 baud, also with a dead device
bench-rtu *arguments: _release-gateway
    python3 -B benches/gateway/rtu.py --gateway "${CARGO_TARGET_DIR:-target}/release/tjern-gateway" {{ arguments }}

_release-gateway:
    cargo build --release --locked -p tjern-gateway --bins

# Fuzz a format until something is found (needs cargo-fuzz): just fuzz rtu_frames
fuzz target *arguments:
    cargo +nightly fuzz run {{ target }} {{ arguments }}

# Licences and advisories (needs cargo-deny)
deny:
    cargo deny check

# At full size what CI runs a share of
campaign: (peers "--seconds" "900")
    PROPTEST_CASES=4096 cargo test --workspace
    TJERN_FAULTS_SEEDS=10000 TJERN_FAULTS_FIRST=$RANDOM$RANDOM cargo test -p tjern-gateway --lib faults:: -- --nocapture
    TJERN_ERASE_CRASHES=all cargo test --workspace --test erasure -- --nocapture crashes::
    TJERN_STORM_SEEDS=10000 TJERN_STORM_FIRST=$RANDOM$RANDOM cargo test --workspace --test storms -- --nocapture a_store_that_fails
    TJERN_OUTAGE_S=259200 cargo test --release -p tjern-gateway --test outage 72 -- --nocapture
    TJERN_BILL_HOURS=24 cargo test --release --workspace --test bill -- --nocapture one_gateway
    TJERN_BILL_HOURS=24 TJERN_GATEWAYS=100 cargo test --release --workspace --test bill -- --nocapture many
