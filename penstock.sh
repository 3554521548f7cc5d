#!/usr/bin/env bash
# The front gate: sets up, builds, and hands over to the installed programs.
#   ./penstock.sh demo | serve [OPTIONS] | chat [OPTIONS] | test | setup | build
set -eu

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build="$root/build"
venv="$root/.venv"

usage() {
    cat <<'TEXT'
penstock.sh COMMAND

  demo     set up, build, start a router and two CPU workers on the bundled model, ask a question
  serve    the same cluster in the foreground: [--model DIR] [--workers N] [--host H] [--port P]
  chat     talk to a running cluster from the terminal
  test     set up and run every suite that this machine can run
  setup    install what is missing (Debian 12, Ubuntu 24.04; root or sudo)
  build    compile

`serve` and `chat` pass their options to the program penstock; see `build/deploy/cli/penstock --help`.
TEXT
}

say() { printf '%s\n' "$*" >&2; }

build_packages="ca-certificates gcc libc6-dev meson ninja-build pkg-config git libzmq3-dev libprotobuf-c-dev
    protobuf-c-compiler libuv1-dev liburing-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libssl-dev node-llhttp"
test_packages="libcmocka-dev clang clang-format python3 python3-venv binutils procps"

# The Rust compiler: 1.87 or newer, by whichever name this system has it.
find_cargo() {
    local c version
    for c in "${CARGO:-}" cargo /usr/lib/rust-1.91/bin/cargo /usr/lib/rust-1.93/bin/cargo; do
        [ -n "$c" ] && command -v "$c" > /dev/null 2>&1 || continue
        version=$("$c" --version 2> /dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
        if [ -n "$version" ] && [ "$version" -ge 87 ]; then
            command -v "$c"
            return 0
        fi
    done
    return 1
}

rust_packages() {
    case "$(. /etc/os-release 2> /dev/null && echo "${ID:-}-${VERSION_ID:-}")" in
        ubuntu-*) echo "cargo-1.91 rustc-1.91" ;;
        *) echo "cargo-web rustc-web" ;;
    esac
}

missing_packages() {
    local p
    for p in "$@"; do
        [ "$(dpkg-query -W -f '${Status}' "$p" 2> /dev/null)" = "install ok installed" ] || printf '%s ' "$p"
    done
}

# setup [test]: installs what is missing, and says what.
setup() {
    local want=$build_packages missing apt=apt-get
    [ "${1:-}" = test ] && want="$want $test_packages"
    if ! command -v dpkg-query > /dev/null; then
        say "penstock needs a Debian 12 or Ubuntu 24.04 system (apt). Elsewhere install the equivalents of:"
        say "  $(echo $want) and Rust 1.87 or newer"
        exit 1
    fi
    missing=$(missing_packages $want)
    find_cargo > /dev/null || missing="$missing$(rust_packages) "
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        apt="sudo apt-get"
        if ! command -v sudo > /dev/null; then
            say "penstock needs packages that are not installed. As root, run:"
            say "  apt-get install --no-install-recommends $missing"
            exit 1
        fi
    fi
    say "installing: $missing"
    $apt update -qq > /dev/null
    if ! DEBIAN_FRONTEND=noninteractive $apt install -y -qq --no-install-recommends $missing > "$root/.setup.log" 2>&1; then
        tail -n 5 "$root/.setup.log" >&2
        say "the installation failed; mend what it says and run this again (whole log: .setup.log)"
        exit 1
    fi
    rm -f "$root/.setup.log"
}

# build_in DIR [MESON OPTIONS]: configures once and compiles.
build_in() {
    local dir=$1
    shift
    if [ ! -f "$dir/build.ninja" ]; then
        rm -rf "$dir"
        meson setup "$dir" "$root" -Dcargo="$(find_cargo)" "$@" > "$root/.build.log" 2>&1 || {
            cat "$root/.build.log" >&2
            exit 1
        }
    fi
    ninja -C "$dir" > "$root/.build.log" 2>&1 || {
        grep -v '^\[' "$root/.build.log" >&2
        exit 1
    }
    rm -f "$root/.build.log"
}

build() {
    [ -f "$build/build.ninja" ] || say "building in $build (two minutes the first time)"
    # Only what a user runs; `test` switches the rest on in the same directory.
    build_in "$build" -Dtests=disabled -Dbench=disabled
}

case "${1:-}" in
    setup) setup "${2:-}" ;;
    build)
        setup
        build
        ;;
    demo)
        setup
        build
        exec "$build/deploy/cli/penstock" demo
        ;;
    serve | chat)
        setup
        build
        exec "$build/deploy/cli/penstock" "$@"
        ;;
    test)
        setup test
        sh "$root/tests/golden/setup_venv.sh" "$venv"
        PENSTOCK_PYTHON="$venv/bin/python" CARGO="$(find_cargo)" exec python3 "$root/tests/run.py" "${@:2}"
        ;;
    -h | --help | help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
