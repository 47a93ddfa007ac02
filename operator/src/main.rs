//! The binary `vingt-operator`.

fn main() -> anyhow::Result<()> {
    vingt_operator::cli::main()
}
