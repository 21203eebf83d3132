// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * What a data plane includes once for each map whose entries it writes and wants to keep when their layout changes:
 *
 *	#define STATE peers                // the map; schema 2 of it would be peers_v2
 *	#define STATE_KEY struct peer_key
 *	#define STATE_VALUE struct peer
 *	#define STATE_TOMBSTONE dead       // a __u32 of the value, only if entries are ever removed; the programs leave it 0
 *	#include "state.h"
 *
 * The map is defined before, and so is what becomes of an entry that old code has changed from then to now after new
 * code had taken it over as it was then: counters add the difference, the newest time wins.
 *
 *	static void peers_merge(STATE_VALUE *entry, const STATE_VALUE *then, const STATE_VALUE *now)
 *
 * Programs then use, and nothing else:
 *
 *	STATE_VALUE *peers_get(const STATE_KEY *key)                             NULL if there is none
 *	STATE_VALUE *peers_add(const STATE_KEY *key, const STATE_VALUE *fresh)   the entry that is there, or a fresh one
 *	long peers_set(const STATE_KEY *key, const STATE_VALUE *value)           replaces, or inserts
 *	long peers_remove(const STATE_KEY *key)                                  -ENOENT if there is none; with tombstones
 *
 * They are functions of their own, so that user space can exchange their bodies for the bridge's when it loads the
 * object (see link.go). Numbers returned are 0 or a negative errno.
 *
 * How one entry of the schema before becomes one of this and back is said by programs in the section "step", of the
 * object that introduced the schema and of all after it; 0 is success, anything else "there is no place for it":
 *
 *	int peers_v2_up(const key2 *key, const value1 *old, value2 *new)
 *	int peers_v2_down(const key2 *key, const value2 *new, value1 *old)
 *	int peers_v2_key_up(const key1 *old, key2 *new), peers_v2_key_down(const key2 *new, key1 *old)   if keys differ
 *
 * Out-parameters come zeroed. Fields that do not fit go to a map peers_v2_side.
 */
#include "migrate.h"

#define STATE_(name) STATE_JOIN(STATE, name)

struct STATE_(_note) {
	__u32 settled; /* enum note_state */
	__u32 pad;
	STATE_VALUE then; /* the source's entry, converted, as it was when it was taken over; zero if there was none */
};

/* Placeholders: user space puts the source's map in, a map of notes as large as it needs to be, and conversions. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} STATE_(__source) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, STATE_KEY);
	__type(value, struct STATE_(_note));
} STATE_(__notes) SEC(".maps");

SEC("bridging") __noinline int STATE_(__key)(const void *source_key, STATE_KEY *key)
{
	return conversion(source_key, key, NULL);
}

SEC("bridging") __noinline int STATE_(__source_key)(const STATE_KEY *key, void *source_key)
{
	return conversion(key, source_key, NULL);
}

/* The value of the source's entry; not 0 if there is no place for it, or it is a tombstone. */
SEC("bridging") __noinline int STATE_(__value)(const void *source_key, const void *source, STATE_VALUE *value)
{
	return conversion(source_key, source, value);
}

static __always_inline __u32 *STATE_(_tombstone)(STATE_VALUE *entry)
{
#ifdef STATE_TOMBSTONE
	return &entry->STATE_TOMBSTONE;
#else
	return NULL;
#endif
}

static __always_inline bool STATE_(_lives)(STATE_VALUE *entry)
{
	__u32 *tombstone = STATE_(_tombstone)(entry);

	return !tombstone || *(volatile __u32 *)tombstone == ENTRY_LIVES;
}

#ifdef STATE_TOMBSTONE
/* For whoever migrates from this map: entries that are not there any more. */
SEC("bridging") __noinline int STATE_(_is_dead)(const STATE_VALUE *entry)
{
	return entry->STATE_TOMBSTONE != ENTRY_LIVES;
}
#endif

/*
 * Makes sure that a tombstone, which is about to be replaced, is not reaped meanwhile: the kernel can only delete by
 * key, so it would take the new entry. A reaper that came first is waited for; it is between two instructions.
 */
#ifdef STATE_TOMBSTONE
static long STATE_(_claim_once)(__u32 i, struct patience *p)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, p->key);

	if (entry && __sync_val_compare_and_swap(&entry->STATE_TOMBSTONE, ENTRY_DEAD, ENTRY_CLAIMED) == ENTRY_REAPED)
		return 0;
	p->error = 0;
	return 1;
}
#endif

static __always_inline long STATE_(_claim)(const STATE_KEY *key)
{
#ifdef STATE_TOMBSTONE
	struct patience p = {.key = key, .error = -EBUSY};

	bpf_loop(STATE_PATIENCE, STATE_(_claim_once), &p, 0);
	return p.error;
#else
	return 0;
#endif
}

static STATE_ACCESSOR STATE_VALUE *STATE_(_get)(const STATE_KEY *key)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, key);

	return entry && STATE_(_lives)(entry) ? entry : NULL;
}

static STATE_ACCESSOR STATE_VALUE *STATE_(_add)(const STATE_KEY *key, const STATE_VALUE *fresh)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, key);

	if (entry && STATE_(_lives)(entry))
		return entry;
	if (!entry)
		bpf_map_update_elem(&STATE, key, fresh, BPF_NOEXIST);
	else if (STATE_(_claim)(key) || bpf_map_update_elem(&STATE, key, fresh, BPF_ANY))
		return NULL;
	entry = bpf_map_lookup_elem(&STATE, key);
	return entry && STATE_(_lives)(entry) ? entry : NULL;
}

static STATE_ACCESSOR long STATE_(_set)(const STATE_KEY *key, const STATE_VALUE *value)
{
	return STATE_(_claim)(key) ?: bpf_map_update_elem(&STATE, key, value, BPF_ANY);
}

#ifdef STATE_TOMBSTONE
static STATE_ACCESSOR long STATE_(_remove)(const STATE_KEY *key)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, key);

	if (!entry || !STATE_(_lives)(entry))
		return -ENOENT;
	return bpf_map_delete_elem(&STATE, key);
}
#endif

/*
 * The bridge. Notes are taken while code that writes the source may still run: who takes an entry over notes what it
 * was, and who replaces an entry first forbids to settle it, for what old code did came before.
 */
static __always_inline bool STATE_(_noting)(void)
{
	struct bridge_state *state = bridge_state();

	return state && *(volatile __u32 *)&state->phase == BRIDGE_NOTING;
}

static __always_inline void STATE_(_note_down)(const STATE_KEY *key, const struct STATE_(_note) * note)
{
	if (STATE_(_noting)() && bpf_map_update_elem(&STATE_(__notes), key, note, BPF_NOEXIST) == -ENOMEM)
		bridge_failed();
}

static long STATE_(_forbid_once)(__u32 i, struct patience *p)
{
	struct STATE_(_note) *note = bpf_map_lookup_elem(&STATE_(__notes), p->key), none = {.settled = NOTE_SETTLED};

	if (note)
		p->error = __sync_val_compare_and_swap(&note->settled, NOTE_OPEN, NOTE_SETTLED) == NOTE_SETTLING
				   ? -EBUSY
				   : 0;
	else
		p->error = bpf_map_update_elem(&STATE_(__notes), p->key, &none, BPF_NOEXIST);
	return p->error != -EBUSY && p->error != -EEXIST;
}

static __always_inline long STATE_(_forbid)(const STATE_KEY *key)
{
	struct patience p = {.key = key};

	if (STATE_(_noting)())
		bpf_loop(STATE_PATIENCE, STATE_(_forbid_once), &p, 0);
	return p.error;
}

/* Takes an entry over from the source, unless somebody was faster, and returns what is there now. */
static __always_inline STATE_VALUE *STATE_(_pull)(const STATE_KEY *key)
{
	char source_key[STATE_KEY_MAX] = {};
	struct STATE_(_note)
		note = {}; /* the value in it is made there: a chain of calls has 512 bytes of stack in all */
	void *source;
	long error;

	if (STATE_(__source_key)(key, source_key))
		return NULL;
	source = bpf_map_lookup_elem(&STATE_(__source), source_key);
	if (!source || STATE_(__value)(source_key, source, &note.then))
		return NULL;
	error = bpf_map_update_elem(&STATE, key, &note.then, BPF_NOEXIST);
	if (!error)
		STATE_(_note_down)(key, &note);
	else if (error != -EEXIST)
		bridge_failed();
	return bpf_map_lookup_elem(&STATE, key);
}

SEC("bridging") __noinline STATE_VALUE *STATE_(_bridge_get)(const STATE_KEY *key)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, key);

	if (!entry)
		entry = STATE_(_pull)(key);
	return entry && STATE_(_lives)(entry) ? entry : NULL;
}

SEC("bridging") __noinline STATE_VALUE *STATE_(_bridge_add)(const STATE_KEY *key, const STATE_VALUE *fresh)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, key);

	if (!entry)
		entry = STATE_(_pull)(key);
	if (entry && STATE_(_lives)(entry))
		return entry;
	if (!entry) {
		struct STATE_(_note) nothing = {};

		/* Old code that still runs may insert it in the source: that is added to the fresh one. */
		if (!bpf_map_update_elem(&STATE, key, fresh, BPF_NOEXIST))
			STATE_(_note_down)(key, &nothing);
	} else if (STATE_(_forbid)(key) || STATE_(_claim)(key) || bpf_map_update_elem(&STATE, key, fresh, BPF_ANY)) {
		return NULL;
	}
	entry = bpf_map_lookup_elem(&STATE, key);
	return entry && STATE_(_lives)(entry) ? entry : NULL;
}

SEC("bridging") __noinline long STATE_(_bridge_set)(const STATE_KEY *key, const STATE_VALUE *value)
{
	return STATE_(_forbid)(key) ?: STATE_(_claim)(key) ?: bpf_map_update_elem(&STATE, key, value, BPF_ANY);
}

#ifdef STATE_TOMBSTONE
/* In place, so that a copier that read the source before cannot insert the entry again. */
SEC("bridging") __noinline long STATE_(_bridge_remove)(const STATE_KEY *key)
{
	STATE_VALUE *entry = bpf_map_lookup_elem(&STATE, key);

	if (!entry)
		entry = STATE_(_pull)(key);
	if (!entry || __sync_val_compare_and_swap(&entry->STATE_TOMBSTONE, ENTRY_LIVES, ENTRY_DEAD) != ENTRY_LIVES)
		return -ENOENT;
	return 0;
}
#endif

/* For every entry of the source. What became of it is one byte of output, which also bounds how long one read takes. */
SEC("iter/bpf_map_elem")
int STATE_(_copy)(struct bpf_iter__bpf_map_elem *ctx)
{
	void *source_key = ctx->key, *source = ctx->value;
	STATE_KEY key = {};
	STATE_VALUE value = {};

	if (!source_key || !source)
		return 0;
	if (STATE_(__key)(source_key, &key) || STATE_(__value)(source_key, source, &value))
		return copied(ctx->meta->seq, COPY_LEFT_OUT);
	switch (bpf_map_update_elem(&STATE, &key, &value, BPF_NOEXIST)) {
	case 0:
		return copied(ctx->meta->seq, COPY_INSERTED);
	case -EEXIST:
		return copied(ctx->meta->seq, COPY_THERE);
	}
	return copied(ctx->meta->seq, COPY_FAILED);
}

/* For every note, once no code that writes the source runs any more. Settling and marking it is one run: none is twice. */
SEC("iter/bpf_map_elem")
int STATE_(_settle)(struct bpf_iter__bpf_map_elem *ctx)
{
	char source_key[STATE_KEY_MAX] = {};
	STATE_VALUE now = {}, *entry;
	struct STATE_(_note) * note;
	STATE_KEY *at = ctx->key, key;
	void *source;

	if (!at)
		return 0;
	key = *at;
	note = bpf_map_lookup_elem(&STATE_(__notes), &key);
	if (!note || __sync_val_compare_and_swap(&note->settled, NOTE_OPEN, NOTE_SETTLING) != NOTE_OPEN)
		return copied(ctx->meta->seq, COPY_THERE);
	if (!STATE_(__source_key)(&key, source_key)) {
		source = bpf_map_lookup_elem(&STATE_(__source), source_key);
		if (source && STATE_(__value)(source_key, source, &now))
			now = (STATE_VALUE){};
		entry = bpf_map_lookup_elem(&STATE, &key);
		if (entry && STATE_(_lives)(entry))
			STATE_(_merge)(entry, &note->then, &now);
	}
	*(volatile __u32 *)&note->settled = NOTE_SETTLED;
	return copied(ctx->meta->seq, COPY_INSERTED);
}

/*
 * A look-up takes no lock. What it finds is there; what it does not find may be there nevertheless, for an entry that is
 * replaced is put at the head of the list that the look-up has begun, and the old one is gone when it gets there. Seen: 1
 * of 3 million. So where it finds none the kernel is asked under the lock of the bucket, which is how it looks before it
 * inserts with NOEXIST. An entry that this inserts was missing: it is the copier's work, and counted as missing. In a map
 * that evicts, for which room would have to be made first, nothing is asked: there entries may go.
 */
static __noinline bool STATE_(_is_there)(const void *source_key, const STATE_KEY *key)
{
	STATE_VALUE value = {};
	void *source;

	if (bpf_map_lookup_elem(&STATE, key))
		return true;
	if (evicts(&STATE))
		return false;
	source = bpf_map_lookup_elem(&STATE_(__source), source_key);
	if (!source)
		return false;
	if (STATE_(__value)(source_key, source, &value))
		return true; /* it is left out */
	return bpf_map_update_elem(&STATE, key, &value, BPF_NOEXIST) == -EEXIST;
}

static long STATE_(_check_next)(__u32 i, struct check_request *request)
{
	char source_key[STATE_KEY_MAX] = {};
	__u32 size = request->key_size;
	STATE_KEY key = {};

	if (size > STATE_KEY_MAX || bpf_copy_from_user(source_key, size & (2 * STATE_KEY_MAX - 1),
					    (void *)(request->keys + (__u64)i * size))) {
		request->fault = 1;
		return 1;
	}
	if (STATE_(__key)(source_key, &key) || !STATE_(_is_there)(source_key, &key))
		request->missing++;
	return 0;
}

/* For a batch of the source's keys: how many of them are not there. */
SEC("syscall")
int STATE_(_check)(struct check_request *ctx)
{
	struct check_request request = *ctx;
	__u64 count = request.count;

	request.missing = request.fault = 0;
	asm volatile("" : "+r"(count)); /* see publish.c: all 64 bits are compared where the loop is inlined */
	bpf_loop(count, STATE_(_check_next), &request, 0);
	ctx->missing = request.missing;
	ctx->fault = request.fault;
	return 0;
}

#ifdef STATE_TOMBSTONE
/* After the commit, when nothing makes tombstones any more. */
SEC("iter/bpf_map_elem")
int STATE_(_reap)(struct bpf_iter__bpf_map_elem *ctx)
{
	STATE_KEY *at = ctx->key, key;
	STATE_VALUE *entry;

	if (!at)
		return 0;
	key = *at;
	entry = bpf_map_lookup_elem(&STATE, &key);
	if (!entry || __sync_val_compare_and_swap(&entry->STATE_TOMBSTONE, ENTRY_DEAD, ENTRY_REAPED) != ENTRY_DEAD)
		return copied(ctx->meta->seq, COPY_THERE);
	bpf_map_delete_elem(&STATE, &key);
	return copied(ctx->meta->seq, COPY_INSERTED);
}
#endif

#undef STATE
#undef STATE_KEY
#undef STATE_VALUE
#undef STATE_TOMBSTONE
