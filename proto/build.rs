//! Compiles the gRPC schema for the feature `grpc`; protox stands in for a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = "schema/concord.proto";
    println!("cargo::rerun-if-changed={schema}");
    #[cfg(feature = "grpc")]
    {
        let descriptors = protox::compile([schema], ["schema"])?;
        tonic_prost_build::configure().compile_fds(descriptors)?;
    }
    Ok(())
}
