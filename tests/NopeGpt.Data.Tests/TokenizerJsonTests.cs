using System.Text.Json.Nodes;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

/// <summary>Tokenizers of other makers, in the forms that Hugging Face's library writes.</summary>
public sealed class TokenizerJsonTests(ITestOutputHelper output) : IDisposable
{
    private const string Gpt2 = @"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    private const string Qwen = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private static readonly Tokenizer _trained = BytePairTrainer.Train([.. StoryGenerator.Stories(1).Take(100), .. Enumerable.Range(0, 60).Select(i => RandomText.Next(new Random(i), 40))], 900);

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Gpt2s_form_gives_the_ids_of_its_pattern(bool prefix)
    {
        Tokenizer tokenizer = Load(ByteLevel(prefix));
        Assert.Equal(" a", Load(ByteLevel(prefix: true)).Decode(Load(ByteLevel(prefix: true)).Encode("a")));
        Random random = Seeded();
        for (int i = 0; i < 500; i++)
        {
            string text = RandomText.Next(random, 20);
            string seen = prefix && text.Length > 0 && text[0] != ' ' ? $" {text}" : text;
            Assert.Equal(BytePairOracle.Encode(tokenizer.Vocabulary, seen, Gpt2), tokenizer.Encode(text));
            Assert.Equal(seen, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Fact]
    public void A_known_pattern_is_cut_by_and_pairs_will_do_for_merges()
    {
        JsonObject json = ByteLevel(prefix: false);
        JsonObject split = Parse("""{"type": "Split", "pattern": {}, "behavior": "Removed", "invert": true}""");
        split["pattern"]!["Regex"] = Qwen;
        JsonObject bytes = Parse("""{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}""");
        json["pre_tokenizer"] = new JsonObject { ["type"] = "Sequence", ["pretokenizers"] = new JsonArray(split, bytes) };
        json["model"]!["merges"] = new JsonArray([.. json["model"]!["merges"]!.AsArray().Select(merge => (JsonNode)new JsonArray([.. merge!.GetValue<string>().Split(' ').Select(part => (JsonNode)part!)]))]);
        Tokenizer tokenizer = Load(json);
        string spelled = Qwen.Replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", StringComparison.Ordinal);
        Random random = Seeded();
        for (int i = 0; i < 500; i++)
        {
            string text = RandomText.Next(random, 20);
            Assert.Equal(BytePairOracle.Encode(tokenizer.Vocabulary, text, spelled), tokenizer.Encode(text));
        }
    }

    [Fact]
    public void Without_a_pattern_the_text_is_one_word()
    {
        JsonObject json = ByteLevel(prefix: false);
        json["pre_tokenizer"]!["use_regex"] = false;
        Tokenizer tokenizer = Load(json);
        Random random = Seeded();
        for (int i = 0; i < 200; i++)
        {
            string text = RandomText.Next(random, 20);
            Assert.Equal(BytePairOracle.Encode(tokenizer.Vocabulary, text, @"[\s\S]+"), tokenizer.Encode(text));
        }
    }

    [Fact]
    public void A_word_that_is_a_token_needs_no_merge_where_merges_are_ignored()
    {
        JsonObject json = ByteLevel(prefix: false);
        int id = AddToVocabulary(json, "Ġzxq");
        Assert.True(Load(json).Encode(" zxq").Count > 1);
        json["model"]!["ignore_merges"] = true;
        Tokenizer tokenizer = Load(json);
        Assert.Equal([id], tokenizer.Encode(" zxq"));
        Assert.Equal(" zxqs", tokenizer.Decode(tokenizer.Encode(" zxqs")));
        Assert.DoesNotContain(id, tokenizer.Encode(" zxqs"));
    }

    [Fact]
    public void Added_tokens_that_are_not_special_are_found_in_the_text_the_longest_first()
    {
        JsonObject json = ByteLevel(prefix: false);
        int size = json["model"]!["vocab"]!.AsObject().Count;
        JsonArray added = json["added_tokens"]!.AsArray();
        foreach (string text in (string[])["  ", "    ", "<think>"]) added.Add(Added(size + added.Count - 1, text, special: false));
        Tokenizer tokenizer = Load(json);
        Assert.Equal([size + 1, size, .. tokenizer.Encode("a"), size + 2, size], tokenizer.Encode("      a<think>  "));
        Assert.Equal("      a<think>  ", tokenizer.Decode(tokenizer.Encode("      a<think>  ")));
        Assert.DoesNotContain("<think>", tokenizer.SpecialTokens.Keys);
    }

    [Theory]
    [InlineData("Prepend")]
    [InlineData("always")]
    [InlineData("first")]
    [InlineData("legacy")]
    [InlineData("never")]
    public void Llamas_forms_put_a_mark_for_the_space_and_bytes_for_what_is_no_character(string form)
    {
        Llama2cFile oracle = new([.. Llama2cFile.Head, .. Characters()]);
        Tokenizer tokenizer = Load(Llama(oracle, form));
        Assert.Empty(tokenizer.Encode(""));
        Random random = Seeded();
        for (int i = 0; i < 500; i++)
        {
            string text = RandomText.Next(random, 15).Replace("▁", "", StringComparison.Ordinal);
            if (text.Length == 0) continue;
            // The plain algorithm puts a space before every text; Metaspace only before one that does not begin with a space, or never.
            string plain = form == "Prepend" || text[0] != ' ' ? text : text[1..];
            List<int> expected = form == "never" && text[0] != ' ' ? [.. oracle.Encode("\n" + text).Skip(2)] : plain.Length == 0 ? [Id(oracle, " ")] : oracle.Encode(plain);
            Assert.Equal(expected, tokenizer.Encode(text));
            if (form is "Prepend" or "never") Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
        Assert.Equal(tokenizer.Encode(" a"), tokenizer.Encode("▁a"));
    }

    [Fact]
    public void The_post_processor_says_what_begins_and_ends_a_text()
    {
        JsonObject json = Llama(new([.. Llama2cFile.Head, .. Characters()]), "Prepend");
        Tokenizer plain = Load(json);
        Assert.Equal((null, 2, 2), (plain.BeginningId, plain.EndOfTextId, plain.DocumentStartId));
        Assert.Equal([2], plain.StopIds);
        json["post_processor"] = Template("<s>", "<unk>");
        Tokenizer framed = Load(json);
        Assert.Equal((1, 0, 1), (framed.BeginningId, framed.EndOfTextId, framed.DocumentStartId));
        Assert.Equal([0, 1], framed.StopIds);
        Assert.Equal(plain.Encode("ab"), framed.Encode("ab"));
        Assert.NotEqual(plain.Hash, framed.Hash);
        JsonObject offsets = Parse("""{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}""");
        json["post_processor"] = new JsonObject { ["type"] = "Sequence", ["processors"] = new JsonArray(offsets, Template("</s>", null)) };
        Tokenizer same = Load(json);
        Assert.Equal((2, 2), (same.BeginningId, same.EndOfTextId));
        Assert.Equal([2], same.StopIds);
    }

    [Theory]
    [InlineData("normalizer", """{"type": "NFC"}""", "normalizer.type = \"NFC\": this normalizer is not known")]
    [InlineData("normalizer", """{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Lowercase"}]}""", "normalizer.normalizers[1].type = \"Lowercase\"")]
    [InlineData("normalizer", """{"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}""", "normalizer.pattern.Regex = \"a+\"")]
    [InlineData("pre_tokenizer", """{"type": "Whitespace"}""", "pre_tokenizer.type = \"Whitespace\": this pre-tokenizer is not known")]
    [InlineData("pre_tokenizer", """{"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false}""", "pre_tokenizer.pattern.Regex = \"\\s+\": this pattern")]
    [InlineData("pre_tokenizer", """{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}""", "pre_tokenizer.prepend_scheme = \"last\": known are always")]
    [InlineData("pre_tokenizer", """{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "lower": 1}""", "pre_tokenizer.lower = 1: this field is not known")]
    [InlineData("post_processor", """{"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}""", "post_processor.type = \"BertProcessing\"")]
    [InlineData("post_processor", """{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}""", "it leaves out the text itself")]
    [InlineData("post_processor", """{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<x>": {"id": "<x>", "ids": [1], "tokens": ["<x>"]}}}""", "post_processor.special_tokens.<x>.ids = [1]")]
    [InlineData("decoder", "null", "decoder = null: without a decoder")]
    [InlineData("decoder", """{"type": "ByteLevel"}""", "decoder.type = \"ByteLevel\": it does not fit")]
    [InlineData("decoder", """{"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Fuse"}]}""", "decoder.decoders[1].type = \"Fuse\": nothing can follow")]
    [InlineData("decoder", """{"type": "Fuse"}""", "ByteFallback")]
    [InlineData("truncation", """{"max_length": 512}""", "truncation = {\"max_length\":512}: texts are neither cut")]
    [InlineData("special", "1", "special = 1: this field is not known")]
    public void What_is_not_understood_is_refused_with_field_value_and_reason(string field, string value, string reason) =>
        Refused(json => json[field] = value == "null" ? null : JsonNode.Parse(value), reason);

    [Theory]
    [InlineData("byte_fallback", "false", "neither a ByteLevel pre-tokenizer nor model.byte_fallback")]
    [InlineData("ignore_merges", "true", "model.ignore_merges = true")]
    [InlineData("dropout", "0.1", "model.dropout = 0.1")]
    [InlineData("end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix = \"</w>\"")]
    [InlineData("merges", """[["a", "b"], ["a", "b"]]""", "merge 2 ('a b') stands twice")]
    [InlineData("merges", """["a b c"]""", "merge 1 ('a b c') is not of two tokens")]
    [InlineData("merges", """[7]""", "model.merges[0] = 7: it must be a text")]
    [InlineData("vocab", "[]", "model.vocab = []: it must be an object")]
    [InlineData("prefix", "1", "model.prefix = 1: this field is not known")]
    public void What_is_not_understood_of_the_model_is_refused(string field, string value, string reason) => Refused(json => json["model"]![field] = JsonNode.Parse(value), reason);

    [Fact]
    public void Added_tokens_that_cannot_be_found_as_meant_are_refused()
    {
        Refused(json => json["added_tokens"]!.AsArray().Add(Added(0, "a", special: true)), "has the ids 0 and");
        Refused(json => json["added_tokens"]!.AsArray().Add(Added(1, "<s>", special: true)), "the added token '<s>' stands twice");
        Refused(json => json["added_tokens"]!.AsArray().Add(Added(json["model"]!["vocab"]!.AsObject().Count, "<pad>", special: false)), "the added token '<pad>' is not special");
        Refused(json => json["added_tokens"]![0]!["rank"] = 1, "added_tokens[0].rank = 1");
        Refused(json => json["added_tokens"]![2]!["special"] = 1, "added_tokens[2].special = 1: it must be true or false");
        Refused(json => json["added_tokens"]!.AsArray().RemoveAt(2), "it has no special token that ends a text; known are <|endoftext|>, </s>");
        Refused(json => json["model"]!["vocab"]!.AsObject().Remove("<0x0A>"), "each once");
    }

    private void Refused(Action<JsonObject> change, string reason)
    {
        JsonObject json = Llama(new([.. Llama2cFile.Head, .. Characters()]), "Prepend");
        change(json);
        string message = Assert.Throws<InvalidDataException>(() => Load(json)).Message;
        Assert.Contains(reason, message, StringComparison.Ordinal);
        Assert.Contains(_folder["tokenizer.json"], message, StringComparison.Ordinal);
    }

    private Tokenizer Load(JsonObject json)
    {
        File.WriteAllText(_folder["tokenizer.json"], json.ToJsonString());
        Tokenizer tokenizer = Tokenizer.Load(_folder.Path);
        tokenizer.Save(_folder["saved"]);
        Assert.Equal(tokenizer.Hash, Tokenizer.Load(_folder["saved"]).Hash);
        return tokenizer;
    }

    /// <summary>The trained tokenizer as GPT-2's was written.</summary>
    private JsonObject ByteLevel(bool prefix)
    {
        _trained.Save(_folder["trained"]);
        JsonObject json = JsonNode.Parse(File.ReadAllText(_folder["trained/tokenizer.json"]))!.AsObject();
        json["pre_tokenizer"] = Parse($$"""{"type": "ByteLevel", "add_prefix_space": {{(prefix ? "true" : "false")}}, "trim_offsets": true, "use_regex": true}""");
        json["model"]!["continuing_subword_prefix"] = "";
        json["model"]!["end_of_word_suffix"] = "";
        return json;
    }

    /// <summary>llama2.c's vocabulary with ▁ for spaces, as Llama's tokenizers are written.</summary>
    private JsonObject Llama(Llama2cFile file, string form)
    {
        File.WriteAllBytes(_folder["tokenizer.bin"], file.Bytes());
        Tokenizer.Load(_folder["tokenizer.bin"]).Save(_folder["llama"]);
        JsonObject json = JsonNode.Parse(File.ReadAllText(_folder["llama/tokenizer.json"]))!.AsObject();
        JsonObject vocabulary = [];
        foreach ((string text, JsonNode? id) in json["model"]!["vocab"]!.AsObject()) vocabulary.Add(text.Replace(' ', '▁'), id!.DeepClone());
        json["model"]!["vocab"] = vocabulary;
        json["model"]!["merges"] = new JsonArray([.. json["model"]!["merges"]!.AsArray().Select(merge => (JsonNode)string.Join(' ', merge!.AsArray().Select(part => part!.GetValue<string>().Replace(' ', '▁')))!)]);
        json["post_processor"] = null;
        string strip = form == "never" ? "" : """, {"type": "Strip", "content": " ", "start": 1, "stop": 0}""";
        json["decoder"] = Parse($$"""{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}{{strip}}]}""");
        json["normalizer"] = form == "Prepend" ? Parse("""{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}""") : null;
        json["pre_tokenizer"] = form switch
        {
            "Prepend" => null,
            "legacy" => Parse("""{"type": "Metaspace", "replacement": "▁", "add_prefix_space": true, "str_rep": "▁"}"""),
            "first" => Parse("""{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}"""),
            _ => Parse($$"""{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "{{form}}", "split": true}"""),
        };
        return json;
    }

    /// <summary>Characters of the random texts, and merges within words; "\n" is none, so that nothing merges over it.</summary>
    private static IEnumerable<(string, float)> Characters()
    {
        string[] merged = ["he", " t", " the", "th", "the", " a", "in", "on", " on", "nc", "ce", "once", " once", "aa", "aaaa", "ab", "abab", "'s", "..", "...", "日本", "é!"];
        return " abcdefghilmnoprstuy.'!?\"日本é😀Lily".EnumerateRunes().Select(rune => rune.ToString()).Distinct().Concat(merged).Select((text, i) => (text, -(float)i));
    }

    private static int Id(Llama2cFile file, string text) => file.Encode("\n" + text)[^1];

    private static int AddToVocabulary(JsonObject json, string token)
    {
        JsonObject vocabulary = json["model"]!["vocab"]!.AsObject();
        int id = vocabulary.Count;
        vocabulary.Add(token, id);
        return id;
    }

    private static JsonObject Template(string before, string? after)
    {
        Dictionary<string, int> ids = new() { ["<unk>"] = 0, ["<s>"] = 1, ["</s>"] = 2 };
        JsonArray single = [Special(before), Parse("""{"Sequence": {"id": "A", "type_id": 0}}""")];
        if (after is not null) single.Add(Special(after));
        JsonObject tokens = [];
        foreach (string name in new HashSet<string>([before, after ?? before])) tokens.Add(name, new JsonObject { ["id"] = name, ["ids"] = new JsonArray(ids[name]), ["tokens"] = new JsonArray(name) });
        return new JsonObject { ["type"] = "TemplateProcessing", ["single"] = single, ["pair"] = new JsonArray(), ["special_tokens"] = tokens };

        static JsonObject Special(string name) => new() { ["SpecialToken"] = new JsonObject { ["id"] = name, ["type_id"] = 0 } };
    }

    private static JsonObject Added(int id, string content, bool special) =>
        new() { ["id"] = id, ["content"] = content, ["single_word"] = false, ["lstrip"] = false, ["rstrip"] = false, ["normalized"] = !special, ["special"] = special };

    private static JsonObject Parse(string json) => JsonNode.Parse(json)!.AsObject();

    private Random Seeded()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        return new Random(seed);
    }
}
