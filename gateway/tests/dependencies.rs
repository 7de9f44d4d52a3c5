//! What the gateway is free of: its home is a small box.

use std::process::Command;

#[test]
fn the_gateway_carries_no_sql_engine_no_tables_and_no_data_frames() {
    let cargo = Command::new(env!("CARGO"))
        .args(["tree", "-p", "tjern-gateway", "-e", "normal", "--prefix", "none", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let tree = String::from_utf8(cargo.stdout).expect("UTF-8");
    assert!(tree.contains("tokio-modbus"), "this is not the gateway's tree:\n{tree}");
    let heavy =
        ["datafusion", "deltalake", "polars", "parquet", "axum", "tjern-lake", "tjern-pipeline", "tjern-queries"];
    let found: Vec<&str> = tree.lines().filter(|line| heavy.iter().any(|name| line.starts_with(name))).collect();
    assert!(found.is_empty(), "the gateway depends on {found:?}");
}
