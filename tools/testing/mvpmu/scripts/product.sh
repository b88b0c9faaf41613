# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Products: directories that the cache keeps under a sum of all that goes into them.

# product NAME SUM COMMAND...: runs COMMAND DEST unless the cache has its product; links it.
product() {
	name=$1
	dir=$1-$2
	shift 2
	if [ -d "$CACHE/$dir" ]; then
		have "$name" "$dir"
	else
		work=$CACHE/$dir.part
		rm -rf "$work"
		mkdir -p "$work"
		"$@" "/cache/$dir.part"
		mv -T "$work" "$CACHE/$dir"
		work=
	fi
	touch "$CACHE/$dir"
	copy "$dir" "$name"
	# Older products of the same name go; a handful stays, for the branches one works on.
	find "$CACHE" -maxdepth 1 -name "$name-????????????" -printf '%T@ %p\n' | sort -rn |
		tail -n +7 | cut -d' ' -f2- | xargs -r rm -rf
}

# copy DIR NAME: build/NAME becomes a copy of the product.
copy() {
	[ "$(cat "$BUILD/$2/.product" 2>/dev/null)" != "$1" ] || return 0
	rm -rf "${BUILD:?}/$2" "$BUILD/$2.part"
	cp -r "$CACHE/$1" "$BUILD/$2.part"
	echo "$1" >"$BUILD/$2.part/.product"
	mv "$BUILD/$2.part" "$BUILD/$2"
}
