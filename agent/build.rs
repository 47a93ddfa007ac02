//! Compiles the kubelet's two plugin APIs from `proto/`, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["registration.proto", "dra.proto"], ["proto"])?;
    // The clients are for whoever plays the kubelet in tests and in the lab.
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(files)?;
    Ok(())
}
