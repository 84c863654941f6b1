/*
 * Loads a program that may be attached to the entry of a kernel function, and says what the verifier answers.
 *   attach [-n] FUNCTION      with -n: only the number of the function's type in the kernel's BTF
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bytes behind a type's header, by its kind; see Documentation/bpf/btf.rst. */
static size_t tail_of(const struct btf_type *type)
{
	unsigned int members = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return members * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return members * sizeof(struct btf_enum);
	case BTF_KIND_FUNC_PROTO:
		return members * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return members * sizeof(struct btf_var_secinfo);
	case BTF_KIND_ENUM64:
		return members * sizeof(struct btf_enum64);
	default:
		return 0;
	}
}

static unsigned int number_of(const char *name)
{
	static char btf[64 << 20];
	const struct btf_header *header = (void *)btf;
	FILE *file = fopen("/sys/kernel/btf/vmlinux", "r");
	const char *at, *end, *strings;
	unsigned int number;

	if (!file || fread(btf, 1, sizeof(btf), file) < sizeof(*header))
		return 0;
	at = btf + header->hdr_len + header->type_off;
	end = at + header->type_len;
	strings = btf + header->hdr_len + header->str_off;
	for (number = 1; at < end; number++) {
		const struct btf_type *type = (void *)at;

		if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC && !strcmp(strings + type->name_off, name))
			return number;
		at += sizeof(*type) + tail_of(type);
	}
	return 0;
}

int main(int argc, char **argv)
{
	/* r0 = 0; exit */
	struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr;
	unsigned int number;

	if (argc < 2)
		return 2;
	number = number_of(argv[argc - 1]);
	if (!number)
		return 3;
	if (argc > 2) {
		printf("%u\n", number);
		return 0;
	}
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_TRACING;
	attr.expected_attach_type = BPF_TRACE_FENTRY;
	attr.attach_btf_id = number;
	attr.insns = (unsigned long)program;
	attr.insn_cnt = 2;
	attr.license = (unsigned long)"GPL";
	if (syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)) >= 0)
		puts("ok");
	else
		puts(strerrorname_np(errno));
	return 0;
}
