using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class BytePairTrainerTests(ITestOutputHelper output)
{
    private const int Smallest = 257;

    [Fact]
    public void The_smallest_tokenizer_is_the_special_token_and_the_bytes_in_the_order_of_their_characters()
    {
        Tokenizer tokenizer = BytePairTrainer.Train(["hello"], Smallest);
        Assert.Equal((Smallest, 0), (tokenizer.VocabularySize, tokenizer.EndOfTextId));
        // '!' is the first printable character; byte 0 is written as U+0100, after all that stand for themselves; 0xAD comes last.
        Assert.Equal("!"u8, tokenizer.Bytes(1));
        Assert.Equal("~"u8, tokenizer.Bytes(94));
        Assert.Equal([(byte)0xA1], tokenizer.Bytes(95).ToArray());
        Assert.Equal([(byte)0], tokenizer.Bytes(189).ToArray());
        Assert.Equal([(byte)0xAD], tokenizer.Bytes(256).ToArray());
        Assert.Equal(256, Enumerable.Range(1, 256).Select(id => tokenizer.Bytes(id)[0]).Distinct().Count());
    }

    [Fact]
    public void Merges_of_a_text_worked_out_by_hand()
    {
        // Words: "low" 1, " low" 4, " lower" 2, " newest" 6, " widest" 3. Pairs (e,s), (s,t) and (w,e) 9, 9 and 8: 'e' has the smaller id, so es;
        // then (es,t) 9; then (l,o) 7 before (o,w) 7; (lo,w) 7; then (e,w), (n,e), (w,est) and (' ',n) have 6, and 'e' has the smallest id.
        string text = "low low low low low lower lower newest newest newest newest newest newest widest widest widest";
        Tokenizer tokenizer = BytePairTrainer.Train([text], Smallest + 5);
        Assert.Equal(["es", "est", "lo", "low", "ew"], Enumerable.Range(Smallest, 5).Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))));
        Assert.Equal(["low", " ", "low", "est"], tokenizer.Encode("low lowest").Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))));
    }

    [Fact]
    public void Overlapping_pairs_are_merged_from_the_left()
    {
        Tokenizer tokenizer = BytePairTrainer.Train(["aaaaa"], 300);
        Assert.Equal(["aa", "aaa", "aaaaa"], Enumerable.Range(Smallest, tokenizer.VocabularySize - Smallest).Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))));
        Assert.Equal(["aa", "aaaaa"], tokenizer.Encode("aaaaaaa").Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))));
    }

    [Fact]
    public void Merges_are_those_of_counting_anew_each_time()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int round = 0; round < 30; round++)
        {
            // Few letters make many ties, overlaps and tokens that two merges spell.
            string[] documents = [.. Enumerable.Range(0, 8).Select(_ => Letters(random)), RandomText.Next(random, 30)];
            Tokenizer tokenizer = BytePairTrainer.Train(documents, Smallest + 60);
            List<(int, int)> expected = BytePairOracle.Train(documents, tokenizer.Vocabulary.Merges.Count, firstByte: 1);
            Assert.Equal(expected, tokenizer.Vocabulary.Merges.Select(merge => (merge.Left, merge.Right)));
        }

        static string Letters(Random random) => string.Concat(Enumerable.Range(0, random.Next(120)).Select(_ => "aaabbc "[random.Next(7)]));
    }

    [Fact]
    public void The_same_documents_give_the_same_tokenizer_and_8_MB_to_4096_tokens_take_less_than_10_seconds()
    {
        List<string> documents = [];
        for (long index = 0, bytes = 0; bytes < 8_000_000; index++)
        {
            documents.Add(StoryGenerator.Story(1, index));
            bytes += documents[^1].Length;
        }
        List<double> progress = [];
        Stopwatch watch = Stopwatch.StartNew();
        Tokenizer tokenizer = BytePairTrainer.Train(documents, 4096, progress: progress.Add);
        TimeSpan took = watch.Elapsed;
        output.WriteLine($"{took.TotalSeconds:F2} s");
        Assert.True(took < TimeSpan.FromSeconds(10), $"{took}");
        Assert.Equal(4096, tokenizer.VocabularySize);
        Assert.Equal(tokenizer.Hash, BytePairTrainer.Train(documents, 4096).Hash);
        Assert.Equal(1, progress[^1]);
        Assert.Equal(progress.Order(), progress);
        int tokens = documents.Take(100).Sum(text => tokenizer.Encode(text).Count), characters = documents.Take(100).Sum(text => text.Length);
        Assert.True(characters / (double)tokens > 4, $"{characters / (double)tokens:F2} characters a token");
    }

    [Fact]
    public void A_text_without_more_pairs_gives_a_smaller_vocabulary()
    {
        Assert.Equal(Smallest + 1, BytePairTrainer.Train(["ab"], 5000).VocabularySize);
        Assert.Equal(Smallest, BytePairTrainer.Train([], 5000).VocabularySize);
    }

    [Fact]
    public void Special_tokens_come_first_in_their_order()
    {
        Tokenizer tokenizer = BytePairTrainer.Train(["some text"], 300, ["<|user|>", "<|endoftext|>"]);
        Assert.Equal([("<|user|>", 0), ("<|endoftext|>", 1)], tokenizer.SpecialTokens.OrderBy(special => special.Value).Select(special => (special.Key, special.Value)));
    }

    [Fact]
    public void Wrong_sizes_and_special_tokens_are_refused()
    {
        Assert.Contains("at least 257", Assert.Throws<ArgumentException>(() => BytePairTrainer.Train([], 256)).Message, StringComparison.Ordinal);
        Assert.Contains("must include", Assert.Throws<ArgumentException>(() => BytePairTrainer.Train([], 300, ["<|a|>"])).Message, StringComparison.Ordinal);
        Assert.Contains("given once", Assert.Throws<ArgumentException>(() => BytePairTrainer.Train([], 300, ["<|endoftext|>", "<|endoftext|>"])).Message, StringComparison.Ordinal);
        Assert.Contains("must not be negative", Assert.Throws<ArgumentException>(() => BytePairTrainer.Train([], new BytePairOptions { VocabularySize = 300, MinimumFrequency = -1 })).Message, StringComparison.Ordinal);
        Assert.Contains("ordinary text", Assert.Throws<ArgumentException>(() => BytePairTrainer.Train([], 300, ["<|endoftext|>", "user"])).Message, StringComparison.Ordinal);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("tinyshakespeare", 21_271, "4ebd9681dd26100711f45c8c0c269a11c372a3f4b6adace59d0fa8a6457ff4c0")]
    [InlineData("wikitext-2-valid", 20_122, "c8afc8ef641b26e0e6696c28dc45b8cc4d05106cce839bc0bc8577a066ba4228")]
    public void Merges_are_those_of_Hugging_Faces_trainer_to_the_last_one(string corpus, int merges, string sha256)
    {
        // npm's tokenizers 0.23.2, byteLevelPreTokenizer(false, true), train([file]): it reads lines with their ends. Lines of "left right".
        string[] lines = File.ReadAllText(Needs.Data($"pretrain/{corpus}.txt")).Split('\n');
        IEnumerable<string> documents = lines.Select((line, i) => i < lines.Length - 1 ? line + "\n" : line);
        Vocabulary trained = BytePairTrainer.Train(documents, new BytePairOptions { VocabularySize = 40_000, Gpt2Words = true }).Vocabulary;
        string[] written = [.. trained.Merges.Select(merge => $"{ByteAlphabet.ToText(trained.Tokens[merge.Left])} {ByteAlphabet.ToText(trained.Tokens[merge.Right])}")];
        Assert.Equal(merges, written.Length);
        Assert.Equal(sha256, Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', written)))));
    }

    [Fact]
    public void Pairs_below_the_minimum_frequency_are_not_merged()
    {
        // " ab" 4 times, " cd" twice, "xy" once.
        string[] documents = [" ab ab ab ab cd cd", "xy"];
        string[] Tokens(long minimum) => [.. BytePairTrainer.Train(documents, new BytePairOptions { VocabularySize = 1000, MinimumFrequency = minimum }) is { } tokenizer
            ? Enumerable.Range(Smallest, tokenizer.VocabularySize - Smallest).Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))) : []];
        Assert.Equal(["ab", " ab", "cd", " cd", "xy"], Tokens(0).Order(StringComparer.Ordinal).OrderBy(token => token.Trim()).ThenBy(token => token.Length));
        Assert.Equal(Tokens(0), Tokens(1));
        Assert.DoesNotContain("xy", Tokens(2));
        Assert.Contains(" cd", Tokens(2));
        Assert.DoesNotContain(" cd", Tokens(3));
        Assert.Empty(Tokens(5));
    }

    [Fact]
    public void Words_as_GPT_2_cuts_them_are_saved_and_loaded()
    {
        using TemporaryFolder folder = new();
        string[] documents = [.. Enumerable.Repeat("in 1234567 they'll DON'T", 50)];
        Tokenizer tokenizer = BytePairTrainer.Train(documents, new BytePairOptions { VocabularySize = 400, Gpt2Words = true });
        Assert.Contains(" 1234567", tokenizer.Encode(" 1234567").Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))));
        Assert.DoesNotContain(" 1234567", BytePairTrainer.Train(documents, 400).Encode(" 1234567").Select(id => Encoding.UTF8.GetString(tokenizer.Bytes(id))));
        tokenizer.Save(folder.Path);
        Tokenizer loaded = Tokenizer.Load(folder.Path);
        Assert.Equal(tokenizer.Hash, loaded.Hash);
        Assert.Equal(tokenizer.Encode("in 1234567 they'll DON'T stop"), loaded.Encode("in 1234567 they'll DON'T stop"));
    }

    [Fact]
    public void The_order_of_documents_does_not_matter_and_progress_counts_them()
    {
        string[] documents = [.. StoryGenerator.Stories(6).Take(600)];
        List<BytePairProgress> progress = [];
        Tokenizer tokenizer = BytePairTrainer.Train(documents, new BytePairOptions { VocabularySize = 800 }, progress.Add);
        Assert.Equal(tokenizer.Hash, BytePairTrainer.Train(documents.Reverse(), 800).Hash);
        Assert.Equal((600, documents.Sum(text => (long)Encoding.UTF8.GetByteCount(text)), 800), (progress[^1].Documents, progress[^1].Bytes, progress[^1].Tokens));
        Assert.Equal((256, 0), (progress[0].Documents, progress[0].Tokens));
        Assert.Equal(progress.OrderBy(state => state.Tokens).ThenBy(state => state.Documents), progress);
    }

    [Fact]
    public void Memory_grows_with_the_distinct_words_only()
    {
        // 60 MB of the same few words, one document at a time.
        string document = string.Concat(Enumerable.Repeat("the same few words and one of more than sixteen letters: counterrevolutionaries\n", 2_500));
        BytePairTrainer.Train([document], 300);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Tokenizer tokenizer = BytePairTrainer.Train(Enumerable.Repeat(document, 300), 300);
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(allocated < 4_000_000, $"{allocated} bytes");
        Assert.Equal(document, tokenizer.Decode(tokenizer.Encode(document)));
    }

    [Fact]
    public void A_vocabulary_larger_than_there_can_be_takes_no_memory_for_it() =>
        Assert.Equal(Smallest + 1, BytePairTrainer.Train(["ab"], int.MaxValue).VocabularySize);

    [Fact]
    public void Training_can_be_cancelled_while_words_are_counted()
    {
        using CancellationTokenSource cancel = new();
        Assert.Throws<OperationCanceledException>(() => BytePairTrainer.Train(Endless(), 2000, cancel: cancel.Token));

        IEnumerable<string> Endless()
        {
            for (int i = 0; ; i++)
            {
                if (i == 10) cancel.Cancel();
                yield return "words without end";
            }
        }
    }

    [Fact]
    public void Training_can_be_cancelled()
    {
        using CancellationTokenSource cancel = new();
        Assert.Throws<OperationCanceledException>(() => BytePairTrainer.Train(StoryGenerator.Stories(1).Take(200), 2000, progress: _ => cancel.Cancel(), cancel: cancel.Token));
    }
}
