"""The command line: all commands under one name."""

import click

from broker.commands.audit import audit_group
from broker.commands.backups import backup_command, restore_command
from broker.commands.breaches import breach_group
from broker.commands.configuration import config_group
from broker.commands.holding import hold_group, remove_child_command
from broker.commands.looking import forensics_command
from broker.commands.notices import notice_command
from broker.commands.operators import operator_key_command, webhook_key_command
from broker.commands.profiles import profile_group
from broker.commands.providers import providers_command
from broker.commands.running import broker_command, demo_command, keyholder_command, up_command, work_command
from broker.commands.sending import submit_command, verify_command
from broker.commands.upkeep import doctor_command, migrate_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Lethe takes photos in, has them worked on, and forgets them: no upload outlives its job.

    \b
    Try it:          lethe demo
    Leave it up:     lethe up
    Something wrong: lethe doctor
    """


for command in (
    up_command,
    demo_command,
    broker_command,
    work_command,
    keyholder_command,
    submit_command,
    verify_command,
    migrate_command,
    doctor_command,
    forensics_command,
    providers_command,
    notice_command,
    config_group,
    profile_group,
    operator_key_command,
    webhook_key_command,
    audit_group,
    hold_group,
    remove_child_command,
    backup_command,
    restore_command,
    breach_group,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
