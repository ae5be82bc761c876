#!/usr/bin/env bash
# Runs tests/stress.rs with new seeds for MINUTES (10): stress.sh [MINUTES [FIRST_SEED]]
set -euo pipefail
cd "$(dirname "$0")/../.."
end=$((SECONDS + 60 * ${1:-10}))
seed=${2:-$(date +%s)}
cargo test --quiet --test stress --no-run
runs=0
while [ $SECONDS -lt $end ]; do
    next=$((seed + 10))
    # Short runs and long ones.
    MTR_STRESS_SEEDS=$seed..$next MTR_STRESS_STEPS=$((1000 + runs / 20 % 4 * 2000)) \
        timeout 600 cargo test --quiet --test stress -- --nocapture
    seed=$next runs=$((runs + 20))
done
echo "$runs runs without a difference"
