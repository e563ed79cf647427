//! `lbctl`, the command line of `lbd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_daemon::lbctl::main()
}
