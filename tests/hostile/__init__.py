"""Bounds: no input takes more memory or time than its size is worth, and none leads out of the tree.

What installers, wheels and people do to installed metadata, and the test that holds it:

| what | held by |
|---|---|
| uv links wheels into its cache: an edit in place would poison it | ``nix/test_end_to_end.py::test_the_cache_of_uv_stays_untouched``, ``cli/test_patch.py::test_another_name_of_the_same_inode_keeps_its_bytes``, ``cli/test_installers_uv.py::test_links_into_the_cache_are_left_alone_and_told_of`` |
| RECORD stale after the patch | ``nix/test_end_to_end.py::test_every_record_row_is_right_and_the_loader_agrees_with_the_plan``, ``cli/test_verify.py::test_a_record_that_was_not_brought_up_to_date`` |
| CRLF of pip, LF of uv, order of rows | ``unit/test_record.py::test_a_change_keeps_the_other_rows_their_order_and_the_line_ending``, ``property/test_record.py::test_a_change_touches_the_rows_of_that_path_alone`` |
| commas and quotes in names, rows of another shape | ``unit/test_record.py::test_quoting_is_kept_as_each_row_has_it``, ``::test_rows_of_another_shape_are_kept_and_mean_nothing``, ``test_files.py::test_any_name_is_patched_recorded_verified_and_restored`` |
| a file that is listed twice | ``unit/test_record.py::test_every_row_of_a_file_that_is_listed_twice_changes`` |
| two spellings of a ``.dist-info`` | ``unit/test_dists.py::test_every_spelling_of_a_row_means_the_file``, ``::test_a_linked_directory_is_followed_but_only_inside`` |
| rows outside site-packages, absolute rows, traversal | ``cli/test_patch.py::test_a_program_outside_site_packages_is_reached_through_its_record_row``, ``unit/test_dists.py::test_a_row_that_leaves_the_prefix_is_refused_with_a_note``, ``test_outside.py`` |
| rows without hash or size | ``unit/test_record.py::test_a_row_without_hash_stays_without``, ``::test_a_size_that_was_given_is_kept_true`` |
| sha384, sha512, md5, unknown algorithms | ``test_metadata.py::test_a_row_keeps_its_algorithm_if_that_is_a_good_one``, ``unit/test_record.py::test_a_poor_or_unknown_algorithm_becomes_sha256`` |
| RECORD.jws, RECORD.p7s | ``test_metadata.py::test_a_signature_of_record_stays_and_fits_again_after_restore`` |
| back-slashes, case, composed letters, no UTF-8 | ``test_files.py::test_any_name_is_patched_recorded_verified_and_restored``, ``::test_names_that_differ_in_case_alone_are_two_files``, ``unit/test_dists.py::test_a_back_slash_can_be_part_of_a_name`` |
| a RECORD that is wrong before we start | ``cli/test_patch.py::test_a_row_that_was_wrong_before_is_not_laundered`` |
| a file of two dists | ``cli/test_patch.py::test_two_dists_that_claim_a_file_are_both_brought_up_to_date``, ``test_files.py::test_a_hard_link_between_two_dists_is_cut_and_both_are_right``, ``faults/test_faults.py`` |
| a dist without RECORD, conda | ``test_metadata.py::test_a_dist_without_record_is_patched_and_gets_none``, ``unit/test_tree.py::test_a_conda_environment_is_pointed_out`` |
| egg-info, editable installs, ``.pth`` | ``test_metadata.py::test_eggs_and_editable_installs_lead_nowhere`` |
| files that no RECORD lists | ``test_metadata.py::test_what_no_dist_claims_is_patched_and_told_or_left_if_so_wished`` |
| SBOM | ``test_metadata.py::test_an_sbom_stays_byte_for_byte`` |
| killed between ELF file and RECORD | ``faults/test_faults.py::test_a_run_that_is_killed_anywhere_is_finished_by_the_next_one`` |
| time stamps; the same input gives the same bytes | ``cli/test_patch.py::test_the_same_input_gives_the_same_bytes_anywhere``, ``::test_mode_and_times_stay_and_setuid_goes``, ``::test_provenance_names_neither_the_tree_nor_the_time`` |
| ``pip uninstall`` and upgrade after a patch | ``cli/test_installers.py::test_uninstalling_leaves_nothing_behind``, ``::test_an_upgrade_is_patched_and_leaves_nothing_of_the_old_one``, ``faults/test_beside_pip.py`` |
| names that no file has, files where nixpatch writes its own | ``test_odd_names.py`` |
| root patches the tree of a user | ``test_owner.py`` |
| provenance that describes files of other dists | ``cli/test_stale_provenance.py`` |
| RECORD and its rows in any form come back | ``test_metadata.py::test_record_comes_back_byte_for_byte``, ``::test_any_row_comes_back_byte_for_byte`` |
| all of it in any order | ``walk/test_walk.py`` |
| a wheel that is unpacked, patched and packed | ``test_metadata.py::test_an_unpacked_wheel_can_be_packed_again`` |
"""  # noqa: E501
