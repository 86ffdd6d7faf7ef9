fn main() -> std::process::ExitCode {
    mlcsc::cli::main()
}
