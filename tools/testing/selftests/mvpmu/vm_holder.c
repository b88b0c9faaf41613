// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps a VM with one vCPU alive, for tests of what is refused meanwhile:
 * removing a module, or loading one.
 *
 * Says "ready" when the VM is there; it is gone when standard input has ended
 * and this program has.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kvm_util.h"
#include "processor.h"
#include "ucall_common.h"

static void guest_code(void)
{
	GUEST_DONE();
}

int main(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vcpu_run(vcpu);

	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;

	kvm_vm_free(vm);
	return EXIT_SUCCESS;
}
