"""Help, which should not wait for what help does not need."""

import subprocess
import sys


def test_the_help_of_tsg_scale_needs_no_library() -> None:
    program = (
        "import sys\nfrom tsg_workers import scale\n"
        "try:\n    scale.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'sqlalchemy', 'requests', 'redis', 'structlog', 'environs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "GROUP_ID" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
