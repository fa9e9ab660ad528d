"""T5 encoders and the CLIP text tower against `transformers`, from folders that it wrote, at random weights."""

import mindspore as ms
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    ByT5Tokenizer,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    MetaClip2TextModel,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.t5.modeling_t5 import T5Attention

from moviegen import device
from moviegen.config import TextEncoder
from moviegen.runs.weights import assign
from moviegen.text.clip import stretch
from moviegen.text.encoders import Pretrained
from moviegen.text.t5 import T5Config, T5Encoder, relative_buckets
from moviegen.text.tokenise import bytes_of, cut, read_tokeniser
from tests.parity.comparing import assert_equal, random_weights

pytestmark = pytest.mark.filterwarnings("ignore:.* tokens; cut")  # the last caption is made to be
SENTENCE = "a red car turns left and the dog runs over grass while it rains in lille hammer"
WORDS = SENTENCE.split()
LONG = " ".join(WORDS * 9)  # 153 words: past T5's largest distance, 128
CAPTIONS = ["", "a dog", "A red car turns left", "the Dog runs", *(" ".join(WORDS[:n]) for n in range(5, 12)), LONG]
UL2 = dict(vocab_size=40, d_model=64, d_kv=24, d_ff=160, num_layers=3, num_heads=4, feed_forward_proj="gated-silu")
BYT5 = dict(vocab_size=384, d_model=48, d_kv=16, d_ff=96, num_layers=4, num_heads=3, feed_forward_proj="gated-gelu")
T5_1_0 = UL2 | dict(feed_forward_proj="relu", d_kv=16, relative_attention_num_buckets=16)
TOWER = dict(vocab_size=40, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4)

BERT = dict(vocab_size=40, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4)
EYE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32)


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    device.start(0)


def randomised(model):
    """A model at random weights that leave nothing trivial.

    T5 does not scale its scores and its training starts with queries that are small in return. With large ones softmax
    is a choice of one token, and any two float32 implementations drift apart with depth: transformers at 32 layers is
    then 1e-4 away from itself in float64.
    """
    state = model.state_dict()
    arrays = random_weights({name: tensor.shape for name, tensor in state.items()})
    for name in (name for name in state if name.endswith("Attention.q.weight")):
        arrays[name] *= np.float32(model.config.d_kv**-0.5)
    for name in (name for name in state if "embed_tokens" in name):  # tied
        arrays[name] = arrays["shared.weight"]
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return model.eval()


def write_tokeniser(folder, ends):
    """A tokenizer of words, which marks the ends of a text as T5 (one end) or CLIP (start and end) does."""
    vocab = {word: index for index, word in enumerate(["<pad>", *ends, "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    template = f"$A {ends[-1]}" if len(ends) == 1 else f"{ends[0]} $A {ends[-1]}"
    marks = [(end, vocab[end]) for end in ends]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    tokenizer.save(str(folder / "tokenizer.json"))


def check_captions(model, tokenizer, encoder):
    """Every caption's kept tokens and their embeddings are the reference's."""
    found = list(encoder.encode(CAPTIONS))
    assert len(found) == len(CAPTIONS)
    for caption, one in zip(CAPTIONS, found, strict=True):
        inputs = tokenizer(caption, truncation=True, max_length=encoder.max_tokens, return_tensors="pt")
        ids = inputs["input_ids"][0].numpy()
        assert one.tokens[one.mask].tolist() == ids.tolist()
        assert_equal(one.text_emb[one.mask], model(input_ids=inputs["input_ids"]).last_hidden_state[0].numpy())
        assert not one.text_emb[~one.mask].any()


@pytest.mark.parametrize("buckets", [32, 16])
def test_relative_buckets(buckets):
    places = torch.arange(1200)
    wanted = T5Attention._relative_position_bucket(places[None, :] - places[:, None], num_buckets=buckets)
    np.testing.assert_array_equal(relative_buckets(1200, buckets, 128), wanted.numpy())


@pytest.mark.parametrize("length", [24, 180])
@pytest.mark.parametrize("config", [UL2, UL2 | {"feed_forward_proj": "gated-gelu"}, T5_1_0])
def test_ul2(config, length, tmp_path):
    model = randomised(T5EncoderModel(transformers.T5Config(**config)))
    model.save_pretrained(tmp_path, max_shard_size="60KB", safe_serialization=True)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    write_tokeniser(tmp_path, ["</s>"])
    encoder = Pretrained("ul2", TextEncoder(width=64, max_tokens=length, folder=str(tmp_path)))
    check_captions(model, PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")), encoder)


def test_encoder_of_a_whole_t5(tmp_path):
    model = randomised(T5ForConditionalGeneration(transformers.T5Config(**UL2)))
    model.save_pretrained(tmp_path, safe_serialization=True)
    write_tokeniser(tmp_path, ["</s>"])
    encoder = Pretrained("ul2", TextEncoder(width=64, max_tokens=32, folder=str(tmp_path)))
    check_captions(model.encoder, PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")), encoder)


def test_weights_in_bfloat16(tmp_path):
    model = randomised(T5EncoderModel(transformers.T5Config(**UL2))).to(torch.bfloat16)
    model.save_pretrained(tmp_path, safe_serialization=True)
    write_tokeniser(tmp_path, ["</s>"])
    encoder = Pretrained("ul2", TextEncoder(width=64, max_tokens=32, folder=str(tmp_path)))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    check_captions(model.float(), tokenizer, encoder)


def test_byt5(tmp_path):
    model = randomised(T5EncoderModel(transformers.T5Config(**BYT5)))
    model.save_pretrained(tmp_path, safe_serialization=True)
    encoder = Pretrained("byt5", TextEncoder(width=48, max_tokens=64, folder=str(tmp_path)))
    check_captions(model, ByT5Tokenizer(), encoder)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_bert_in_ul2s_place(kind, activation, tmp_path):
    model = randomised(kind(transformers.BertConfig(**BERT, hidden_act=activation)))
    model.save_pretrained(tmp_path, max_shard_size="60KB", safe_serialization=True)
    write_tokeniser(tmp_path, ["[CLS]", "[SEP]"])
    encoder = Pretrained("ul2", TextEncoder(width=64, max_tokens=32, folder=str(tmp_path)))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    check_captions(model if kind is BertModel else model.bert, tokenizer, encoder)


@pytest.mark.parametrize("caption", ["", "a dog", "Ein Bär läuft", "犬が走る 🐕", " two  blanks ", "tab\tand “quotes”"])
def test_bytes(caption):
    assert bytes_of(caption) == ByT5Tokenizer()(caption)["input_ids"]


# --- tokenizers that transformers builds, of vocabularies small enough to be followed by hand ---

MERGES = [("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>"), ("do", "g")]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
PIECES = ["▁", "▁a", "▁red", "▁dog", "▁do", "s", "g", "d", "o", "A"]
TOKENISED = ["", "a red dog", "A  Red\tDOG", " dogs dog's 12 \n", "Ein Bär läuft", "犬 🐕 a red dog", "dog " * 30]


def check_tokens(tokenizer, folder):
    """Ours, from the file that the reference saves, gives the reference's tokens, whole and cut."""
    tokenizer.save_pretrained(folder)
    tokenise = read_tokeniser(folder)
    for caption in TOKENISED:
        assert tokenise(caption) == tokenizer(caption)["input_ids"], caption
        for length in (3, 8):
            wanted = tokenizer(caption, truncation=True, max_length=length)["input_ids"]
            assert cut(tokenise(caption), length) == wanted, (caption, length)
    return tokenise


def test_tokens_of_clip(tmp_path):
    """Lower case; bytes, the last of a word marked, merged in the order of a list; both ends marked."""
    names = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in MERGES)]
    vocab = {name: index for index, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    tokenise = check_tokens(CLIPTokenizer(vocab=vocab, merges=MERGES), tmp_path)
    wanted = ["<|startoftext|>", "a</w>", "red</w>", "dog</w>", "dog", "s</w>", "1</w>", "<|endoftext|>"]
    assert tokenise("a  RED dog dogs 1") == [vocab[name] for name in wanted]


def test_tokens_of_bert(tmp_path):
    """Lower case without accents; the longest pieces, all but a word's first marked; both ends marked."""
    pieces = ["a", "red", "dog", "do", "##gs", "##s", "##g", "12", "'", "ein", "bar", "lauft"]
    vocab = {piece: index for index, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    tokenise = check_tokens(BertTokenizer(vocab=vocab), tmp_path)
    wanted = ["[CLS]", "a", "red", "dog", "##s", "bar", "[UNK]", "[SEP]"]
    assert tokenise("a  RED dogs Bär 犬") == [vocab[piece] for piece in wanted]


def test_tokens_of_t5(tmp_path):
    """Case is kept; the likeliest pieces, of which a word's first holds the blank before it; the end marked."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab = [*marks, *((piece, -len(PIECES) + 0.1 * len(piece)) for piece in PIECES)]
    places = {piece: index for index, (piece, _) in enumerate(vocab)}
    tokenise = check_tokens(T5Tokenizer(vocab=vocab, extra_ids=0), tmp_path)
    wanted = ["▁a", "▁red", "▁dog", "s", "▁", "A", "▁", "<unk>", "</s>"]
    assert tokenise("a  red dogs A 犬") == [places[piece] for piece in wanted]


def check_tower(model, folder, length):
    """`model` is the reference of `folder` for texts of `length` tokens."""
    write_tokeniser(folder, ["<|startoftext|>", "<|endoftext|>"])
    encoder = Pretrained("metaclip", TextEncoder(width=64, max_tokens=length, folder=str(folder)))
    check_captions(model, PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")), encoder)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("length", [77, 32])
def test_metaclip(activation, length, tmp_path):
    model = randomised(CLIPTextModel(transformers.CLIPTextConfig(**TOWER, hidden_act=activation)))
    model.save_pretrained(tmp_path, max_shard_size="60KB", safe_serialization=True)
    check_tower(model, tmp_path, length)


def test_metaclip_of_stretched_positions(tmp_path):
    model = randomised(CLIPTextModel(transformers.CLIPTextConfig(**TOWER)))
    model.save_pretrained(tmp_path, safe_serialization=True)
    longer = CLIPTextModel(transformers.CLIPTextConfig(**TOWER, max_position_embeddings=256))
    state = model.state_dict()
    table = "embeddings.position_embedding.weight"
    state[table] = torch.nn.functional.interpolate(state[table].T[None], 256, mode="linear", align_corners=True)[0].T
    longer.load_state_dict(state)
    check_tower(longer.eval(), tmp_path, 256)
    np.testing.assert_allclose(stretch(model.state_dict()[table].numpy(), 256), state[table].numpy(), atol=1e-5)


def test_text_tower_of_a_whole_clip(tmp_path):
    config = transformers.CLIPConfig(text_config=TOWER, vision_config=EYE)
    model = randomised(CLIPModel(config))
    model.save_pretrained(tmp_path, safe_serialization=True)
    check_tower(model.text_model, tmp_path, 77)


def test_text_tower_of_metaclip_2(tmp_path):
    config = transformers.MetaClip2TextConfig(**TOWER, hidden_act="gelu", eos_token_id=2)
    model = randomised(MetaClip2TextModel(config))
    model.save_pretrained(tmp_path, safe_serialization=True)
    check_tower(model, tmp_path, 77)


def test_full_depth_of_ul2_stays_within_tolerance():
    """32 layers, narrow: errors add up over depth, not over width."""
    config = UL2 | {"num_layers": 32}
    model = randomised(T5EncoderModel(transformers.T5Config(**config)))
    network = T5Encoder(T5Config(**config), 48)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "embed_tokens" not in name}
    assign(dict(network.parameters_and_names()), arrays, "the reference")
    tokens = np.random.default_rng(0).integers(0, 40, (2, 48)).astype(np.int32)
    keep = np.arange(48) < np.array([[48], [20]])
    found = network(ms.Tensor(tokens), ms.Tensor(keep)).asnumpy()
    mask = torch.tensor(keep)
    wanted = model(input_ids=torch.tensor(tokens).long(), attention_mask=mask.long()).last_hidden_state.numpy()
    assert_equal(found[keep], wanted[keep])
