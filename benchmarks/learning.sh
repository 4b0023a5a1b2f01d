#!/bin/bash
# Our default recipe against the reference's (preset nope-gpt: its initialisation, Adafactor 1e-2, clip 10) on one token file, architecture and budget:
# 1,000 steps of 8 x 256 tokens, d 192, 4 layers, 6 query and 2 key heads, the bytes of a text as the vocabulary (and end-of-text, which is not used).
#   benchmarks/learning.sh [TEXT [OUT [NAME=OPTIONS ...]]]
# TEXT  what `nopegpt data prepare` reads; default ../shared/data/pretrain/openstax-ccby.jsonl.gz beside the repository
# OUT   default a folder under /tmp; a run that is done there is not done again
# NAME=OPTIONS  more recipes, for example "adamw=--optimizer adamw --learning_rate 2e-3 --schedule cosine"
# Environment: SEEDS (1 2 3), JOBS (1, runs at a time), THREADS (0, all cores, for each run), STEPS (1000), NOPEGPT (the program; built where not given).
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
text=${1:-$repository/../shared/data/pretrain/openstax-ccby.jsonl.gz}
out=${2:-/tmp/nopegpt-learning}
shift $(($# < 2 ? $# : 2))
seeds=(${SEEDS:-1 2 3})
steps=${STEPS:-1000}
tokens_a_step=2048
interval=$((steps / 20 > 0 ? steps / 20 : 1))

names=(reference ours)
declare -A options=([reference]="--preset nope-gpt" [ours]="")
for more in "$@"; do
    [[ $more == ?*=* ]] || { echo "$more: write a recipe as NAME=OPTIONS" >&2; exit 2; }
    names+=("${more%%=*}")
    options[${more%%=*}]=${more#*=}
done

if [[ -z ${NOPEGPT:-} ]]; then
    dotnet build "$repository/NopeGpt.Jobs" -c Release -v q >&2
    NOPEGPT=$(ls "$repository"/NopeGpt.Jobs/bin/Release/net*/*/nopegpt | head -1)
fi
mkdir -p "$out"
[[ -e $out/tokens.bin ]] || "$NOPEGPT" data prepare --source "$text" --kind text --vocabulary_size 257 --end_of_text none --out "$out/tokens.bin" >&2

train() { # NAME SEED
    local result=$out/$1-$2
    [[ -e $result.json ]] && return
    # shellcheck disable=SC2086 # a recipe is several options
    "$NOPEGPT" pretrain ${options[$1]} --root "$out/store" --dataset "$out/tokens.bin" --name "$1 $2" --seed "$2" --device cpu --threads "${THREADS:-0}" \
        --embedding_dimensions 192 --num_q_heads 6 --num_kv_heads 2 --num_decoder_layers 4 \
        --tokens_per_sample 256 --batch_size 8 --gradient_accumulation_steps 1 --max_steps "$steps" \
        --num_eval_samples 128 --eval_interval "$interval" --checkpoint_interval 0 --sample_tokens 0 --json > "$result.new" 2> "$result.log" \
        || { echo "$1, seed $2 failed: $result.log" >&2; tail -3 "$result.log" >&2; exit 1; }
    mv "$result.new" "$result.json"
}

for name in "${names[@]}"; do
    for seed in "${seeds[@]}"; do
        while (($(jobs -rp | wc -l) >= ${JOBS:-1})); do wait -n; done
        train "$name" "$seed" &
    done
done
while (($(jobs -rp | wc -l))); do wait -n; done
wait

# Lines of "NAME SEED STEP LOSS".
evaluations() {
    local name seed folder
    for name in "${names[@]}"; do
        for seed in "${seeds[@]}"; do
            folder=$(sed -n 's/^ *"folder": "\(.*\)",$/\1/p' "$out/$name-$seed.json")
            sed -n "s/.*\"type\":\"metrics\",\"step\":\([0-9]*\),.*\"eval\/loss\":\([0-9.eE+-]*\).*/$name $seed \1 \2/p" "$folder/events.jsonl"
        done
    done
}

evaluations | awk -v tokens="$tokens_a_step" -v steps="$steps" -v order="${names[*]}" '
    { loss[$1, $2, $3] = $4; if (!($2 in known)) { known[$2]; seeds[++count] = $2 } if (!(($1, $3) in at)) { at[$1, $3]; evaluated[$1] = evaluated[$1] " " $3 } }
    END {
        print "| recipe | seed | loss at the end | by the reference | tokens when it passes the reference'\''s end |\n|---|---|---|---|---|"
        recipes = split(order, name, " ")
        for (r = 1; r <= recipes; r++) {
            sum = 0
            for (s = 1; s <= count; s++) {
                end = loss[name[r], seeds[s], steps]; goal = loss["reference", seeds[s], steps]; sum += end
                passed = "never"
                n = split(evaluated[name[r]], step, " ")
                for (i = 1; i <= n; i++) if (loss[name[r], seeds[s], step[i]] < goal) { passed = sprintf("%d (%.0f %%)", step[i] * tokens, 100 * step[i] / steps); break }
                printf "| %s | %s | %.3f | %.3f | %s |\n", name[r], seeds[s], end, end / goal, r == 1 ? "" : passed
            }
            mean[r] = sum / count
        }
        for (r = 1; r <= recipes; r++) printf "| %s | mean | %.3f | %.3f | |\n", name[r], mean[r], mean[r] / mean[1]
    }'
