#!/usr/bin/env bash
# Prepare a virtual environment with the pinned stack: tools/setup_env.sh [onedl|openmmlab] [VENV_DIR]
# Idempotent. mmcv's compiled wheel is kept in the user's cache, one per Python, torch and mmcv version,
# so that a second checkout is ready in a minute or two.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STACK=${1:-onedl}
VENV=${2:-.venv}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kdplugin
case $STACK in
  onedl | openmmlab) ;;
  *) echo "Expected STACK to be onedl or openmmlab but got '$STACK'." >&2; exit 2 ;;
esac
say() { printf '[setup %4ds] %s\n' "$SECONDS" "$*"; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.10 python3; do
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  echo "Expected Python 3.10, 3.11 or 3.12 with venv but found none. Install one or set PYTHON=/path/to/python." >&2
  return 1
}

fingerprint() {
  cat requirements/{build,runtime,test,dev,constraints,overrides}.txt "requirements/$STACK.txt" setup.py |
    sha256sum | cut -c1-16
}

STAMP=$VENV/.kdplugin-$STACK-$(fingerprint)
if [[ -f $STAMP ]]; then
  say "$VENV is ready ($STACK)"
  exit 0
fi

BASE_PYTHON=$(find_python)
UV=$(command -v uv || true)
if [[ -z $UV ]]; then
  UV=$CACHE/uv/bin/uv
  if [[ ! -x $UV ]]; then
    say "installing uv into the user's cache"
    "$BASE_PYTHON" -m venv "$CACHE/uv"
    "$CACHE/uv/bin/python" -m pip install --quiet uv==0.13.8
  fi
fi

if [[ ! -x $VENV/bin/python ]]; then
  say "creating $VENV with $("$BASE_PYTHON" --version)"
  "$UV" venv --quiet --python "$BASE_PYTHON" "$VENV"
fi
PY=$VENV/bin/python
say "installing torch and the build tools (about 3 GB the first time)"
install() { "$UV" pip install --python "$PY" -c requirements/constraints.txt --override requirements/overrides.txt "$@"; }
install -r requirements/build.txt

MMCV=$(grep -oE '^(onedl-)?mmcv==[0-9.]+' "requirements/$STACK.txt")
TAG=$("$PY" -c 'import sys, torch; print(f"cp{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}")')
WHEELS=$CACHE/wheels/${MMCV//==/-}-$TAG
if ! compgen -G "$WHEELS/*.whl" >/dev/null; then
  command -v c++ >/dev/null || { echo "Expected a C++ compiler (c++) but found none. Install g++ (Debian: apt-get install g++)." >&2; exit 1; }
  say "compiling $MMCV (8 to 20 minutes on 2 cores, once per Python and torch version)"
  mkdir -p "$WHEELS"
  BUILD=$(mktemp -d "$WHEELS/build.XXXX")
  trap 'rm -rf "$BUILD"' EXIT
  LOG=$CACHE/wheels/build-${MMCV//==/-}-$TAG.log
  MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} PATH="$PWD/$VENV/bin:$PATH" \
    "$PY" -m pip wheel -v --no-deps --no-build-isolation --no-binary :all: -w "$BUILD" "$MMCV" 2>&1 \
    | tee "$LOG" | grep --line-buffered -oE '^ *\[[0-9]+/[0-9]+\]|[Ee]rror:.*' | sed -un '/rror/p; /rror/!{1~6p}' || {
      echo "Expected $MMCV to compile but the build failed. Read the end of $LOG." >&2; exit 1; }
  mv "$BUILD"/*.whl "$WHEELS/"
fi

say "installing the $STACK stack"
install "$WHEELS"/*.whl -r "requirements/$STACK.txt" -r requirements/runtime.txt -r requirements/test.txt -r requirements/dev.txt
install --no-build-isolation --no-deps -e .
rm -f "$VENV"/.kdplugin-*
touch "$STAMP"
say "$VENV is ready ($STACK)"
