#!/bin/sh
# Write ray_cluster.yaml and the policies to build/aws, with your values instead of REPLACE-… (docs/aws.md).
#
#   ACCOUNT=… INPUT=bucket/prefix OUTPUT=bucket/prefix AMI=ami-… sh deploy/aws/fill.sh
set -eu
cd "$(dirname "$0")/../.."
target=${TARGET:-build/aws}

# refuse NAME VALUE PATTERN: exit unless the whole value matches an extended regular expression.
refuse() {
    printf '%s\n' "$2" | grep -Eqx "$3" || { echo "$1='$2' does not match $3" >&2; exit 2; }
}
refuse ACCOUNT "${ACCOUNT:-}" '[0-9]{12}'
refuse AMI "${AMI:-}" 'ami-[0-9a-f]{8,17}'
refuse INPUT "${INPUT:-}" '[a-z0-9.-]+/[A-Za-z0-9._/-]*[A-Za-z0-9._-]'
refuse OUTPUT "${OUTPUT:-}" '[a-z0-9.-]+/[A-Za-z0-9._/-]*[A-Za-z0-9._-]'

mkdir -p "$target"
for file in ray_cluster.yaml deploy/aws/*.json; do
    sed -e "s|REPLACE-ACCOUNT|$ACCOUNT|g" \
        -e "s|REPLACE-AMI|$AMI|g" \
        -e "s|REPLACE-INPUT-BUCKET|${INPUT%%/*}|g" \
        -e "s|REPLACE-INPUT-PREFIX|${INPUT#*/}|g" \
        -e "s|REPLACE-OUTPUT-BUCKET|${OUTPUT%%/*}|g" \
        -e "s|REPLACE-OUTPUT-PREFIX|${OUTPUT#*/}|g" \
        "$file" > "$target/$(basename "$file")"
done
echo "wrote ray_cluster.yaml and the policies to $target"
