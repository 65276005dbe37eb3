#!/bin/sh
# Make the demo voice again, from nothing to the exported checkpoint and its figures. Every stage resumes:
# run it again after an interruption. Debian packages: festival festvox-us-slt-hts festlex-cmu fortunes wamerican wamerican-small.
#
#   WORK=~/demo_voice_work demo_voice/run.sh
set -eu
cd "$(dirname "$0")"
WORK=${WORK:?set WORK to a folder with 10 GB of space}
CHECKPOINT=${CHECKPOINT:-../bark_model/demo_checkpoint}
THREADS=${THREADS:-2}

if [ ! -x "$WORK/env/bin/python" ]; then
    python3 -m venv "$WORK/env"
    "$WORK/env/bin/pip" install -r requirements.txt
fi
run() { "$WORK/env/bin/python" "$@"; }

[ -f "$WORK/text/train.txt" ] || run make_text.py "$WORK/text"
run make_speech.py "$WORK" --shards 156 --processes "$THREADS"
run make_codes.py "$WORK" --shards 37 --threads "$THREADS"
run train_semantic.py "$WORK" --steps 13000 --shards 156 --threads "$THREADS"
run train_coarse.py "$WORK" --steps 6800 --threads "$THREADS"
run train_decoder.py "$WORK" --steps 2200 --shards 18 --threads "$THREADS"
run train_encoder.py "$WORK" --steps 10800 --shards 12 --threads "$THREADS"
run train_fine.py "$WORK" --steps 1600 --shards 20 --threads "$THREADS"
run export.py "$WORK" "$CHECKPOINT"
run evaluate.py "$WORK" "$CHECKPOINT" --threads "$THREADS"
run spectrograms.py "$WORK" pictures
