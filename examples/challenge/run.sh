#!/bin/sh
# Judges log_input/stream_log.json after log_input/batch_log.json, and writes log_output/flagged_purchases.json.
# It uses the peerwatch on the PATH, or else that of the checkout this folder lies in.
set -eu
cd -- "$(dirname -- "$0")"
PATH="$PATH:$PWD/../../.venv/bin"
if ! command -v peerwatch >/dev/null; then
    echo "run.sh: peerwatch is not installed; type 'make run' in its checkout, or 'pip install' it" >&2
    exit 2
fi
mkdir -p log_output
exec peerwatch run --quiet --force log_input/batch_log.json log_input/stream_log.json log_output/flagged_purchases.json
