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

# Licences and advisories (needs cargo-deny)
deny:
    cargo deny check

# At full size what CI runs a share of
campaign: (peers "--seconds" "900")
    PROPTEST_CASES=4096 cargo test --workspace
    TJERN_OUTAGE_S=259200 cargo test --release -p tjern-gateway --test outage 72 -- --nocapture
