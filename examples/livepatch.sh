#!/bin/sh
# From patches to a package, for one kernel: built, tried in a guest, packaged. What is run in a container or by CI.
#
#   livepatch.sh RELEASE VERSION OUTPUT PATCH...
#
# KLPX_MAINTAINER   who answers for the package: NAME <ADDRESS>
# KLPX_OPTIONS      more options for klpx build: --cve CVE-2026-1 --sign-key FILE --sign-cert FILE ...
# KLPX_KERNELS      where kernels are looked for: --sysroot DIR; by default what is missing is downloaded (--fetch)
# KLPX_CHECKS       what the fix does, a line each: --after COMMAND => OUTPUT, or --before COMMAND => OUTPUT
set -eu

release=$1 version=$2 output=$3
shift 3
kernels=${KLPX_KERNELS:---fetch}
# A livepatch takes the place of the one before only under another name.
name="fixes-$(printf %s "$version" | tr -c '[:alnum:]' -)"
module="$output/livepatch-$name.ko"
report="$output/livepatch-$name.json"

mkdir -p "$output"
# The variables hold lists of options, and are split.
# shellcheck disable=SC2086
klpx build --kernel "$release" $kernels --name "$name" --module-version "$version" --output "$module" \
    --report "$report" ${KLPX_OPTIONS-} "$@"

patches=$#
while [ "$patches" -gt 0 ]; do
    shift
    patches=$((patches - 1))
done
while IFS= read -r check; do
    case "$check" in
    '--after '*) set -- "$@" --after "${check#--after }" ;;
    '--before '*) set -- "$@" --before "${check#--before }" ;;
    '') ;;
    *) echo "KLPX_CHECKS: no check: $check" >&2 && exit 2 ;;
    esac
done <<EOF
${KLPX_CHECKS-}
EOF
# shellcheck disable=SC2086
klpx test "$module" $kernels "$@"

klpx package "$module" --format "${KLPX_FORMAT:-deb}" --report "$report" --output "$output"
