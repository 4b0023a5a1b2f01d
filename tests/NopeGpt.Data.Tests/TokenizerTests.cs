using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class TokenizerTests(ITestOutputHelper output)
{
    private static readonly Tokenizer _stories = BytePairTrainer.Train(StoryGenerator.Stories(1).Take(400), 1000);

    /// <summary>Trained on hard strings too, so that merges run through bytes of other scripts.</summary>
    private static readonly Tokenizer _mixed = BytePairTrainer.Train(MixedDocuments(), 1200);

    [Fact]
    public void Ids_are_those_of_plain_byte_pair_encoding_for_any_text()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        foreach (Tokenizer tokenizer in (Tokenizer[])[_stories, _mixed])
        {
            for (int i = 0; i < 1500; i++)
            {
                string text = RandomText.Next(random, 25);
                Assert.Equal(BytePairOracle.Encode(tokenizer.Vocabulary, text), tokenizer.Encode(text));
                Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
            }
        }
    }

    [Fact]
    public void Every_character_of_Unicode_comes_back()
    {
        StringBuilder text = new();
        for (int value = 0; value < 0x110000; value++)
            if (Rune.TryCreate(value, out Rune rune)) text.Append(rune);
        string all = text.ToString();
        Assert.Equal(all, _stories.Decode(_stories.Encode(all)));
    }

    [Fact]
    public void Words_are_cut_as_the_pattern_says()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int i = 0; i < 20_000; i++)
        {
            string text = RandomText.Next(random, 12);
            Assert.Equal(BytePairOracle.Split(text), Split(text));
        }
        Assert.Equal(["Don", "'t", " stop", ",", " it", "'S", " ", " ", "123", "45", " #!?\n\n", "  ", " x"], Split("Don't stop, it'S  12345 #!?\n\n   x"));
    }

    [Fact]
    public void Every_single_character_is_of_the_kind_that_the_pattern_gives_it()
    {
        for (int value = 0; value < 0x10000; value++)
        {
            if (!Rune.IsValid(value)) continue;
            string text = $"a{(char)value}{(char)value}1 b";
            Assert.Equal(BytePairOracle.Split(text), Split(text));
        }
    }

    [Fact]
    public void Half_a_surrogate_pair_becomes_the_replacement_character()
    {
        string text = "a\ud83d b\ude00c \ude00\ud83d";
        Assert.Equal("a\ufffd b\ufffdc \ufffd\ufffd", _stories.Decode(_stories.Encode(text)));
        Assert.Equal(_stories.Encode("a\ufffd b\ufffdc \ufffd\ufffd"), _stories.Encode(text));
    }

    [Fact]
    public void The_text_of_a_special_token_is_ordinary_text()
    {
        List<int> ids = _stories.Encode("a<|endoftext|>b");
        Assert.DoesNotContain(_stories.EndOfTextId, ids);
        Assert.Equal("a<|endoftext|>b", _stories.Decode(ids));
        Assert.Equal("<|endoftext|>", _stories.Decode([_stories.EndOfTextId]));
        Assert.Equal("<|endoftext|>"u8, _stories.Bytes(_stories.EndOfTextId));
    }

    [Fact]
    public void Empty_text_has_no_ids_and_encode_appends()
    {
        Assert.Empty(_stories.Encode(""));
        List<int> ids = [7];
        _stories.Encode("Once", ids);
        Assert.Equal([7, .. _stories.Encode("Once")], ids);
    }

    [Fact]
    public void A_very_long_word_is_encoded_in_reasonable_time()
    {
        string word = string.Concat(Enumerable.Repeat("banana", 5_000));
        Assert.Equal(word, _stories.Decode(_stories.Encode(word)));
    }

    [Fact]
    public void Many_threads_get_the_same_ids()
    {
        Tokenizer fresh = BytePairTrainer.Train(StoryGenerator.Stories(1).Take(100), 600);
        string[] texts = [.. StoryGenerator.Stories(2).Take(300)];
        List<int>[] alone = [.. texts.Select(text => BytePairOracle.Encode(fresh.Vocabulary, text))];
        Parallel.For(0, 4 * texts.Length, i => Assert.Equal(alone[i % texts.Length], fresh.Encode(texts[i % texts.Length])));
    }

    [Fact]
    public void Saved_and_loaded_it_is_the_same_tokenizer()
    {
        using TemporaryFolder folder = new();
        Tokenizer tokenizer = BytePairTrainer.Train(MixedDocuments(), 700, ["<|pad|>", "<|endoftext|>"]);
        tokenizer.Save(folder.Path);
        Assert.Equal(["tokenizer.json"], Directory.GetFiles(folder.Path).Select(Path.GetFileName));
        foreach (string path in (string[])[folder.Path, folder["tokenizer.json"]])
        {
            Tokenizer loaded = Tokenizer.Load(path);
            Assert.Equal(tokenizer.Hash, loaded.Hash);
            Assert.Equal((700, 1), (loaded.VocabularySize, loaded.EndOfTextId));
            Assert.Equal(tokenizer.SpecialTokens, loaded.SpecialTokens);
            foreach (string text in MixedDocuments().Take(50)) Assert.Equal(tokenizer.Encode(text), loaded.Encode(text));
        }
        byte[] first = File.ReadAllBytes(folder["tokenizer.json"]);
        Tokenizer.Load(folder.Path).Save(folder.Path);
        Assert.Equal(first, File.ReadAllBytes(folder["tokenizer.json"]));
        Assert.Equal(64, tokenizer.Hash.Length);
        Assert.NotEqual(_mixed.Hash, tokenizer.Hash);
    }

    [Theory]
    [InlineData("\"type\": \"BPE\"", "\"type\": \"Unigram\"", "only BPE is supported")]
    [InlineData("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", "normalizer")]
    [InlineData("\"use_regex\": false", "\"use_regex\": true", "a second pre-tokenizer")]
    [InlineData("{1,3}", "{1,2}", "pre-tokenizer")]
    [InlineData("<|endoftext|>", "<|end|>", "no special token that ends a text")]
    [InlineData("\"!\": 1,", "\"!\": 2,", "each once")]
    [InlineData("\"!\": 1,", "", "each once")]
    [InlineData("\"!\": 1,", "\"日\": 1,", "byte-level alphabet")]
    [InlineData("\"!\": 1,", "\"!\": \"one\",", "model.vocab.! = \"one\"")]
    [InlineData("\"merges\": [", "\"merges\": [\"q qqqq\",", "merge 1")]
    [InlineData("\"merges\": [", "\"merges\": [[null, 1],", "must be a text")]
    [InlineData("\"merges\": [", "\"murges\": [", "model.murges")]
    [InlineData("\"dropout\": null", "\"dropout\": 0.1", "'dropout'")]
    [InlineData("\"byte_fallback\": false", "\"byte_fallback\": true", "'byte_fallback'")]
    public void A_foreign_or_damaged_file_is_refused_with_reason_and_cure(string old, string changed, string reason)
    {
        using TemporaryFolder folder = new();
        _stories.Save(folder.Path);
        string json = File.ReadAllText(folder["tokenizer.json"]);
        Assert.Contains(old, json, StringComparison.Ordinal);
        File.WriteAllText(folder["tokenizer.json"], json.Replace(old, changed, StringComparison.Ordinal));
        string message = Assert.Throws<InvalidDataException>(() => Tokenizer.Load(folder.Path)).Message;
        Assert.Contains(reason, message, StringComparison.Ordinal);
        Assert.Contains(folder["tokenizer.json"], message, StringComparison.Ordinal);
        Assert.Contains("trained again", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_truncated_or_missing_file_is_named()
    {
        using TemporaryFolder folder = new();
        Assert.Contains("does not exist", Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(folder["gone.json"])).Message, StringComparison.Ordinal);
        string message = Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(folder.Path)).Message;
        Assert.Contains($"{folder.Path} has no tokenizer.json; put there", message, StringComparison.Ordinal);
        _stories.Save(folder.Path);
        byte[] whole = File.ReadAllBytes(folder["tokenizer.json"]);
        foreach (int length in (int[])[0, 1, whole.Length / 2, whole.Length - 3])
        {
            File.WriteAllBytes(folder["tokenizer.json"], whole[..length]);
            Assert.Contains("not whole JSON", Assert.Throws<InvalidDataException>(() => Tokenizer.Load(folder.Path)).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Unknown_ids_are_refused()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => _stories.Decode([_stories.VocabularySize]));
        Assert.Throws<ArgumentOutOfRangeException>(() => _stories.Bytes(-1).Length);
    }

    [Fact]
    public void The_decoder_never_shows_half_a_character()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int i = 0; i < 500; i++)
        {
            string text = RandomText.Next(random, 20).Replace("\ufffd", "", StringComparison.Ordinal);
            TextDecoder decoder = new(_stories);
            StringBuilder shown = new();
            foreach (int id in _stories.Encode(text))
            {
                string piece = decoder.Push(id);
                Assert.DoesNotContain('\ufffd', piece);
                Assert.False(piece.Length > 0 && (char.IsLowSurrogate(piece[0]) || char.IsHighSurrogate(piece[^1])));
                shown.Append(piece);
            }
            Assert.Equal("", decoder.Flush());
            Assert.Equal(text, shown.ToString());
        }
    }

    [Fact]
    public void The_decoder_replaces_what_never_became_a_character()
    {
        List<int> smile = _stories.Encode("😀");
        Assert.True(smile.Count > 1);
        TextDecoder decoder = new(_stories);
        foreach (int id in smile.Take(smile.Count - 1)) Assert.Equal("", decoder.Push(id));
        Assert.Equal("\ufffd", decoder.Flush());
        Assert.Equal("Once", string.Concat(_stories.Encode("Once").Select(decoder.Push)));
        Assert.Equal("", decoder.Push(smile[0]));
        Assert.StartsWith("\ufffd", decoder.Push(_stories.Encode("a")[0]), StringComparison.Ordinal);
    }

    private static IEnumerable<string> MixedDocuments()
    {
        Random random = new(5);
        foreach (string story in StoryGenerator.Stories(3).Take(60))
        {
            yield return story;
            yield return RandomText.Next(random, 60);
        }
    }

    private static List<string> Split(string text) => WordSplitterTests.Split(WordPattern.Trained, text);
}
