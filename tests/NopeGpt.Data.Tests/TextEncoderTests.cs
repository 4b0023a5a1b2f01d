using System.Diagnostics;
using System.IO.Compression;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.ML.Tokenizers;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;
using Tokenizer = NopeGpt.Data.Tokenization.Tokenizer;

namespace NopeGpt.Data.Tests;

public sealed class TextEncoderTests(ITestOutputHelper output)
{
    private const string Gpt2Pattern = @"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    private static readonly string[] _names = ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"];

    [NeedsFact(Needs.SharedData)]
    public void Ids_are_those_of_the_library_for_prose_and_for_any_text()
    {
        Random random = Seeded();
        string[] texts = [.. Prose("openstax-ccby", 40_000), .. Prose("standardebooks", 40_000), .. Enumerable.Range(0, 1500).Select(_ => Plain(RandomText.Next(random, 25)))];
        foreach (string name in _names)
        {
            TiktokenTokenizer library = Library(name);
            Tokenizer ours = Ours(name);
            foreach (string text in texts) Assert.Equal(library.EncodeToIds(text), ours.Encode(text));
        }

        // The library's patterns see UTF-16 units and do not know that ſ is an s, and it always takes special tokens for what they are.
        static string Plain(string text) => new([.. text.Where(c => !char.IsSurrogate(c) && c is not ('ſ' or '|'))]);
    }

    [NeedsFact(Needs.SharedData)]
    public void Long_words_have_the_ids_of_the_library()
    {
        Random random = Seeded();
        foreach (string name in _names)
        {
            TiktokenTokenizer library = Library(name);
            Tokenizer ours = Ours(name);
            for (int i = 0; i < 60; i++)
            {
                int length = random.Next(1, 400), letters = random.Next(1, 27);
                string word = string.Concat(Enumerable.Range(0, length).Select(_ => (char)('a' + random.Next(letters))));
                Assert.Equal(library.EncodeToIds(word), ours.Encode(word));
                string spaces = new(' ', length), cyrillic = string.Concat(Enumerable.Range(0, length).Select(_ => (char)('а' + random.Next(letters))));
                Assert.Equal(library.EncodeToIds(spaces + cyrillic), ours.Encode(spaces + cyrillic));
            }
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void A_megabyte_without_a_space_takes_no_longer_than_its_length_explains()
    {
        Random random = Seeded();
        Tokenizer tokenizer = Ours("r50k_base");
        foreach (string text in (string[])[new('a', 1_000_000), new(' ', 1_000_000), new('=', 1_000_000), string.Concat(Enumerable.Range(0, 1_000_000).Select(_ => (char)('a' + random.Next(26)))), new('日', 300_000)])
        {
            Stopwatch watch = Stopwatch.StartNew();
            List<int> ids = tokenizer.Encode(text);
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(20), $"{watch.Elapsed} for {text[..10]}");
            Assert.Equal(text, tokenizer.Decode(ids));
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void Nothing_is_allocated_for_a_token()
    {
        byte[][] documents = [.. Prose("openstax-ccby", 300_000).Select(Encoding.UTF8.GetBytes)];
        string[] texts = [.. documents.Select(Encoding.UTF8.GetString)];
        foreach (string name in _names)
        {
            Tokenizer tokenizer = Ours(name);
            List<int> ids = [];
            long tokens = 0;
            Encode();
            long before = GC.GetAllocatedBytesForCurrentThread();
            Encode();
            Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.True(tokens > 50_000, $"{tokens}");

            void Encode()
            {
                foreach (byte[] document in documents)
                {
                    ids.Clear();
                    tokenizer.Encode(document, ids);
                    tokens += ids.Count;
                }
                foreach (string text in texts)
                {
                    ids.Clear();
                    tokenizer.Encode(text, ids);
                }
            }
        }
    }

    [Fact]
    public void Bytes_have_the_ids_of_their_text_and_what_is_not_UTF_8_is_replaced()
    {
        Random random = Seeded();
        Tokenizer tokenizer = BytePairTrainer.Train(StoryGenerator.Stories(1).Take(100), 600);
        for (int i = 0; i < 1000; i++)
        {
            byte[] utf8 = Encoding.UTF8.GetBytes(RandomText.Next(random, 12));
            for (int changes = random.Next(3); changes > 0 && utf8.Length > 0; changes--) utf8[random.Next(utf8.Length)] = (byte)random.Next(256);
            List<int> ids = [7];
            tokenizer.Encode(utf8, ids);
            string text = Encoding.UTF8.GetString(utf8);
            Assert.Equal([7, .. tokenizer.Encode(text)], ids);
            Assert.Equal(text, tokenizer.Decode(ids.Skip(1)));
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void Words_are_remembered_by_all_of_their_bytes()
    {
        // Zeros at the end, the lengths around the numbers that a word is kept in, and many more words than there is room for.
        Tokenizer tokenizer = Ours("cl100k_base"), fresh = Ours("cl100k_base");
        string[] texts = [.. Enumerable.Range(1, 20).SelectMany(length => (string[])[new('\0', length), "a" + new string('\0', length), new('a', length), new string('a', length) + "b"])];
        foreach (string _ in texts.Concat(texts))
            foreach (string text in texts) Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        Random random = Seeded();
        string[] words = [.. Enumerable.Range(0, 100_000).Select(_ => string.Concat(Enumerable.Range(0, random.Next(2, 18)).Select(_ => (char)('a' + random.Next(26)))))];
        List<int>[] first = [.. words.Select(tokenizer.Encode)];
        foreach (int i in Enumerable.Range(0, words.Length).Reverse().Where(i => i % 7 == 0)) Assert.Equal(first[i], tokenizer.Encode(words[i]));
        foreach (int i in Enumerable.Range(0, 2000)) Assert.Equal(first[i], fresh.Encode(words[i]));
    }

    [NeedsFact(Needs.SharedData)]
    public void Threads_at_once_get_the_ids_of_one_alone()
    {
        string[] texts = Prose("standardebooks", 400_000);
        foreach (string name in _names)
        {
            Tokenizer alone = Ours(name), shared = Ours(name);
            List<int>[] expected = [.. texts.Select(alone.Encode)];
            Parallel.For(0, 4 * texts.Length, new() { MaxDegreeOfParallelism = 8 }, i => Assert.Equal(expected[i % texts.Length], shared.Encode(texts[i % texts.Length])));
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void Special_tokens_in_text_become_ids_only_where_that_is_asked_for()
    {
        Tokenizer tokenizer = Ours("r50k_base").ForModel(50261, "model");
        List<int> ids = [1];
        tokenizer.EncodeWithSpecials("<|im_start|>user\nHi<|im_end|><|endoftext|><|im_", ids);
        Assert.Equal([1, 50257, .. tokenizer.Encode("user\nHi"), 50258, 50256, .. tokenizer.Encode("<|im_")], ids);
        Assert.DoesNotContain(tokenizer.Encode("<|im_start|>user<|endoftext|>"), id => id >= 50256);
        Tokenizer nested = BytePairTrainer.Train(["text"], 300, ["<|a|>", "<|endoftext|>", "<|a|><|b|>"]);
        ids.Clear();
        nested.EncodeWithSpecials("<|a|><|b|><|a|>x", ids);
        Assert.Equal([2, 0, .. nested.Encode("x")], ids);
        ids.Clear();
        nested.EncodeWithSpecials("", ids);
        Assert.Empty(ids);
    }

    private static Tokenizer Ours(string name) => Tokenizer.Load(name, [Needs.Data("tokenizers")]);

    private static TiktokenTokenizer Library(string name)
    {
        if (name is "cl100k_base" or "o200k_base") return TiktokenTokenizer.CreateForEncoding(name, new Dictionary<string, int>());
        using Stream ranks = File.OpenRead(Needs.Data($"tokenizers/{name}.tiktoken"));
        return TiktokenTokenizer.Create(ranks, new RegexPreTokenizer(new Regex(Gpt2Pattern, RegexOptions.Compiled), null), null, null);
    }

    /// <summary>Documents from the beginning of a corpus, the last one cut, of so many characters together.</summary>
    private static string[] Prose(string corpus, int characters)
    {
        using StreamReader lines = new(new GZipStream(File.OpenRead(Needs.Data($"pretrain/{corpus}.jsonl.gz")), CompressionMode.Decompress));
        List<string> texts = [];
        for (int left = characters; left > 0 && lines.ReadLine() is { } line; left -= texts[^1].Length)
        {
            using JsonDocument record = JsonDocument.Parse(line);
            string text = record.RootElement.GetProperty("text").GetString()!;
            texts.Add(text[..Math.Min(left, text.Length)]);
        }
        return [.. texts];
    }

    private Random Seeded()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        return new Random(seed);
    }
}
