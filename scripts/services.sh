#!/usr/bin/env bash
# Installs the system packages that the tests can use; needs root once there is one to install.
set -euo pipefail
echo "The tests need nothing beyond Python: there is no system package to install."
