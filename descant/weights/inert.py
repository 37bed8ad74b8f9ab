"""Keys of the official JSON files that change nothing in what descant computes, known by name.

Two layouts are read: the one the official files have (transformers 4.x) and the one transformers 5 writes. Both copy
many attributes of a general base class into every nested object; they are listed once, here.
"""


def _keys(names: str) -> tuple[str, ...]:
    return tuple(names.split())


# attributes of the general config base class (transformers 4.x and 5) and of its text generation
BASE_KEYS = _keys(
    "_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures attn_implementation "
    "bad_words_ids "
    "begin_suppress_tokens chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id "
    "diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty "
    "finetuning_task forced_bos_token_id forced_eos_token_id id2label label2id "
    "length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences "
    "output_attentions output_hidden_states output_scores prefix problem_type remove_invalid_values "
    "repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params "
    "temperature tf_legacy_loss tokenizer_class top_k top_p torch_dtype torchscript "
    "transformers_version typical_p use_bfloat16 use_cache auto_map keys_to_ignore_at_inference unsloth_version "
    "unsloth_fixed"
)

# one list per object of config.json, on top of BASE
TOP_KEYS = _keys("enable_talker hidden_size bos_token_id eos_token_id pad_token_id tie_word_embeddings")
TEXT_KEYS = _keys(
    "attention_dropout init_std initializer_range max_window_layers sliding_window bos_token_id rope_type"
)
THINKER_KEYS = _keys(
    "bos_token_id ignore_index init_std initializer_range user_token_id vision_token_id vision_pad_token_id"
)
AUDIO_KEYS = _keys(
    "activation_dropout attention_dropout dropout encoder_layerdrop init_std initializer_range "
    "bos_token_id eos_token_id pad_token_id tie_word_embeddings"
)
VISION_KEYS = _keys("init_std initializer_range bos_token_id eos_token_id pad_token_id tie_word_embeddings")
TALKER_KEYS = _keys(
    "attention_dropout bos_token_id eos_token_id init_std initializer_range max_window_layers pad_token_id "
    "sliding_window tts_text_start_token_id"
)
TOKEN2WAV_KEYS = _keys("bos_token_id eos_token_id pad_token_id tie_word_embeddings")
DIT_KEYS = _keys(
    "dropout enc_global_context enc_lin_neurons bos_token_id eos_token_id pad_token_id tie_word_embeddings"
)
BIGVGAN_KEYS = _keys("bos_token_id eos_token_id pad_token_id tie_word_embeddings")

# preprocessor_config.json and processor_config.json
INPUTS_KEYS = _keys(
    "auto_map crop_size data_format default_to_square device disable_grouping feature_extractor_type "
    "image_processor_type input_data_format model_input_names num_frames pad_size padding_side processor_class "
    "return_metadata return_tensors video_metadata video_processor_type"
)

# generation_config.json
GENERATION_KEYS = _keys(
    "_from_model_config bos_token_id cache_implementation chat_format max_length max_window_size output_attentions "
    "output_hidden_states output_logits output_scores pad_token_id return_dict_in_generate transformers_version "
    "use_cache talker_pad_token_id thinker_pad_token_id assistant_confidence_threshold assistant_lookbehind "
    "decoder_start_token_id disable_compile early_stopping is_assistant length_penalty low_memory num_assistant_tokens "
    "num_assistant_tokens_schedule remove_invalid_values renormalize_logits target_lookbehind"
)

# options of generation_config.json that are not implemented, with the values at which they change nothing
GENERATION_NEUTRAL: dict[str, float] = {
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "min_p": 0.0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "token_healing": False,
    "typical_p": 1.0,
}
