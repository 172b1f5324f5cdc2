/* Ranks that differ, by cards made up here.
 * plan: limit=20
 * Equal cards pass; an odd program, version, instruction set or bf16 unit gives one line with who has what and what to
 * set; processors may differ where they are pinned or where no kernels run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "jobs/job_ranks.h"

enum { RANKS = 5 };

static void equal_cards(struct rank_card *cards)
{
    for (int r = 0; r < RANKS; r++) {
        cards[r] = (struct rank_card){.program = "00ff", .version = "1", .isa = "avx512", .bf16 = "bf16 products"};
        snprintf(cards[r].host, sizeof cards[r].host, "node%d", r / 2);
    }
}

static void expect(const struct rank_card *cards, const char *isa, const char *precision, enum status st,
                   const char *message)
{
    status_clear();
    assert_int_equal(rank_cards_compare(cards, RANKS, isa, precision), st);
    assert_string_equal(status_message(), message);
}

static void equal_ranks_pass(void **state)
{
    struct rank_card cards[RANKS];
    equal_cards(cards);
    expect(cards, "auto", "auto", ST_OK, "");
    assert_int_equal(rank_cards_compare(cards, 1, "auto", "auto"), ST_OK);
}

static void an_odd_program_is_named(void **state)
{
    struct rank_card cards[RANKS];
    equal_cards(cards);
    strcpy(cards[3].program, "1234");
    expect(cards, NULL, NULL, ST_COMM,
           "the program's file differs among the ranks: 00ff on rank 0 on node0 and 3 more, 1234 on rank 3 on node1; "
           "start every rank with the same program, or install it again where it is damaged");
    equal_cards(cards);
    strcpy(cards[0].version, "2");
    expect(cards, NULL, NULL, ST_COMM,
           "versions differ among the ranks: 2 on rank 0 on node0, 1 on rank 1 on node0 and 3 more; give every host "
           "the same MPI and HDF5 libraries");
}

static void unlike_processors_need_a_choice(void **state)
{
    struct rank_card cards[RANKS];
    equal_cards(cards);
    strcpy(cards[4].isa, "avx2"), strcpy(cards[4].bf16, "no bf16 products");
    expect(cards, NULL, NULL, ST_OK, "");
    expect(cards, "auto", "auto", ST_CONFIG,
           "processors differ among the ranks: avx512 on rank 0 on node0 and 3 more, avx2 on rank 4 on node2; the same "
           "bits everywhere need one instruction set: set run.isa to avx2");
    expect(cards, "avx2", "auto", ST_CONFIG,
           "processors differ among the ranks: bf16 products on rank 0 on node0 and 3 more, no bf16 products on rank 4 "
           "on node2; set run.precision to fp32 or bf16");
    expect(cards, "avx2", "bf16", ST_OK, "");
    strcpy(cards[1].isa, "generic");
    expect(cards, "auto", "fp32", ST_CONFIG,
           "processors differ among the ranks: avx512 on rank 0 on node0 and 2 more, generic on rank 1 on node0, avx2 "
           "on rank 4 on node2; the same bits everywhere need one instruction set: set run.isa to generic");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equal_ranks_pass), cmocka_unit_test(an_odd_program_is_named),
                                       cmocka_unit_test(unlike_processors_need_a_choice)};
    return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}
