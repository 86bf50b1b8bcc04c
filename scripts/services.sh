#!/usr/bin/env bash
# Installs the system packages that the tests can use; needs root once there is one to install.
set -euo pipefail
# Node.js runs the reference MCP servers.
command -v npm > /dev/null || { apt-get update && apt-get install --yes nodejs npm; }
