//! `completions` and `man`: made from the same definitions of command lines that the programs parse.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::ctl::console::Console;
use crate::ctl::options::{PROGRAMS, definition};
use crate::ctl::outcome::{Answer, CtlError};
use crate::grid::client::{grabber, releaser, runner};
use crate::{domains, grid, kube, monitor, webservice};

/// The definition of a program's command line, by default that of urlproxyctl.
fn definition_of(program: Option<&str>) -> Result<clap::Command, CtlError> {
    Ok(match program.unwrap_or("urlproxyctl") {
        "urlproxyctl" => definition(),
        "proxylistener" => grid::Options::command(),
        "kube2proxy" => kube::Options::command(),
        "webservicemonitor" => monitor::Options::command(),
        "webservice" => webservice::Options::command(),
        "webservice-runner" => runner::Options::command(),
        "portgrabber" => grabber::Options::command(),
        "portreleaser" => releaser::Options::command(),
        "invisible-unicorn" => domains::Options::command(),
        other => {
            return Err(CtlError::usage(format!("unknown program {other:?}, expected one of {}", PROGRAMS.join(", "))));
        }
    })
}

/// Prints a completion script.
pub fn completions(console: &mut Console, shell: Shell, program: Option<&str>) -> Result<Answer, CtlError> {
    let mut command = definition_of(program)?;
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    console.text(&script)?;
    Ok(Answer::Positive)
}

/// Prints a man page: the program's, followed by a section for each of its commands.
pub fn man(console: &mut Console, program: Option<&str>) -> Result<Answer, CtlError> {
    let mut command = definition_of(program)?.disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).manual("urlproxy");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for inner in command.get_subcommands() {
        render_command(inner, &mut page)?;
    }
    man.render_extra_section(&mut page)?;
    man.render_version_section(&mut page)?;
    console.text(&page)?;
    Ok(Answer::Positive)
}

/// A command's usage and its own options, as a subsection.
fn render_command(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).replace('-', " ");
    let title = command.get_bin_name().map_or(name, str::to_owned);
    writeln!(page, ".SH \"{}\"", title.to_uppercase())?;
    // Options of all commands are described once.
    let own = command.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    let man = Man::new(own);
    let mut section = Vec::new();
    man.render_synopsis_section(&mut section)?;
    man.render_description_section(&mut section)?;
    man.render_options_section(&mut section)?;
    if command.get_after_help().is_some() {
        man.render_extra_section(&mut section)?;
    }
    // Sections of the program are above, these are below its command.
    page.extend(String::from_utf8_lossy(&section).replace(".SH ", ".SS ").bytes());
    for inner in command.get_subcommands() {
        render_command(inner, page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_programs_have_a_definition() {
        for program in PROGRAMS {
            assert_eq!(definition_of(Some(program)).unwrap().get_name(), program);
        }
        assert!(definition_of(Some("x")).unwrap_err().to_string().contains("expected one of urlproxyctl, "));
    }
}
