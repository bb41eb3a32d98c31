//! Arguments → one call → exit code.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(runsheet::cli::main())
}
