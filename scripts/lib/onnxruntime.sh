# shellcheck shell=bash
# ONNX Runtime's library for the tests that need it. Sourced after lib/steps.sh.

ONNXRUNTIME_VERSION=1.31.1

# find_onnxruntime: installs the package from PyPI, once, and names its library in AUSPEX_TEST_ONNXRUNTIME.
find_onnxruntime() {
    local folder=$CARGO_TARGET_DIR/onnxruntime-$ONNXRUNTIME_VERSION found
    [[ -z ${AUSPEX_TEST_ONNXRUNTIME:-} ]] || return 0
    found=$folder/onnxruntime/capi/libonnxruntime.so.$ONNXRUNTIME_VERSION
    if [[ ! -f $found ]]; then
        need "python3 -m pip --version" python3-pip &&
            python3 -m pip install --quiet --disable-pip-version-check --no-input --no-deps --retries 5 --timeout 30 \
                --target "$folder" "onnxruntime==$ONNXRUNTIME_VERSION" || return 1
    fi
    [[ -f $found ]] || return 1
    export AUSPEX_TEST_ONNXRUNTIME=$found
}
