using System.IO.Compression;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>`tokenizer train` and `tokenizer compare` as processes.</summary>
public sealed class TokenizerTrainingTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private static Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments) => NopeGptProcess.RunAsync(["tokenizer", .. arguments]);

    private string Write(string name, string content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_folder[name])!);
        using FileStream file = File.Create(_folder[name]);
        using Stream stream = name.EndsWith(".gz", StringComparison.Ordinal) ? new GZipStream(file, CompressionLevel.Fastest) : file;
        stream.Write(Encoding.UTF8.GetBytes(content));
        return _folder[name];
    }

    private static string JsonLines(IEnumerable<string> texts, string column) => string.Concat(texts.Select(t => JsonSerializer.Serialize(new Dictionary<string, string> { [column] = t }) + "\n"));

    [Fact]
    public async Task Files_folders_and_patterns_of_several_formats_make_the_trainers_tokenizer()
    {
        string[] stories = [.. StoryGenerator.Stories(3).Take(90)];
        string text = Write("a.txt", string.Join("\n<|endoftext|>\n", stories[..30]));
        Write("folder/b.jsonl.gz", JsonLines(stories[30..60], "body"));
        Write("more/c.jsonl", JsonLines(stories[60..80], "body"));
        Write("more/d.jsonl", JsonLines([.. stories[80..], " "], "body") + "oh\n");
        (int code, string output, string errors) = await RunAsync("train", "--input", text, _folder["folder"], "--input", _folder["more/*.jsonl"], "--columns=text=body", "--vocabulary-size", "400", "--out", _folder["new/ours"],
            "--special_tokens", "<|endoftext|>,<|user|>", "--minimum_frequency", "2", "--gpt2-words", "--json");
        Assert.True(code == 0, errors);
        Tokenizer expected = BytePairTrainer.Train(stories, new BytePairOptions { VocabularySize = 400, SpecialTokens = [Tokenizer.EndOfText, "<|user|>"], MinimumFrequency = 2, Gpt2Words = true });
        Assert.Equal(expected.Hash, Tokenizer.Load(_folder["new/ours"]).Hash);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        Assert.Equal((_folder["new/ours"], 400, expected.Hash, 90, stories.Sum(s => (long)Encoding.UTF8.GetByteCount(s))),
            (json.GetProperty("out").GetString(), json.GetProperty("vocabulary_size").GetInt32(), json.GetProperty("hash").GetString(), json.GetProperty("documents").GetInt32(), json.GetProperty("bytes").GetInt64()));
        Assert.True(json.GetProperty("seconds").GetDouble() > 0);
        Assert.Equal((1, 1), (json.GetProperty("reading").GetProperty("bad").GetInt32(), json.GetProperty("reading").GetProperty("empty").GetInt32()));
        Assert.Contains($"{_folder["more/d.jsonl"]}, row 12: this is not JSON", errors, StringComparison.Ordinal);
        Assert.Contains("counting words", errors, StringComparison.Ordinal);
        Assert.Equal(["tokenizer.json"], Directory.EnumerateFileSystemEntries(_folder["new/ours"]).Select(Path.GetFileName));
    }

    [Fact]
    public async Task End_of_text_is_added_to_the_special_tokens_and_a_short_text_gives_a_smaller_vocabulary()
    {
        (int code, string output, string errors) = await RunAsync("train", "--input", Write("a.txt", "a cat"), "--vocabulary_size", "5000", "--out", _folder["ours"], "--special_tokens", "<|user|>", "--json");
        Assert.True(code == 0, errors);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        Assert.Equal("""{"<|endoftext|>":0,"<|user|>":1}""", json.GetProperty("special_tokens").GetRawText());
        Assert.Equal(261, json.GetProperty("vocabulary_size").GetInt32());
        Assert.Contains("smaller than the 5000 asked for", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Of_conversations_each_message_is_a_document()
    {
        string[] stories = [.. StoryGenerator.Stories(4).Take(20)];
        string chat = Write("chat.jsonl", string.Concat(stories.Chunk(2).Select(pair => JsonSerializer.Serialize(new { messages = new[] { new { role = "user", content = pair[0] }, new { role = "assistant", content = pair[1] } } }) + "\n")) + "{\"messages\": 3}\n");
        (int code, _, string errors) = await RunAsync("train", "--input", chat, "--vocabulary_size", "350", "--out", _folder["ours"]);
        Assert.True(code == 0, errors);
        Assert.Equal(BytePairTrainer.Train(stories, 350).Hash, Tokenizer.Load(_folder["ours"]).Hash);
        Assert.Contains("1 bad", errors, StringComparison.Ordinal);
        Assert.Contains($"{chat}, row 11: field messages", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Everything_that_is_wrong_is_named_at_once()
    {
        string text = Write("a.csv", "title,body\nx,y\n"), full = Path.GetDirectoryName(Write("full/tokenizer.json", "{}"))!;
        (int code, string output, string errors) = await RunAsync("train", "--input", text, "/no/such.txt", _folder["full"], "--text_column", "boddy", "--vocabulary_size", "200", "--special_tokens", "user,,", "--minimum_frequency", "-1", "--out", full, "--vocab", "3");
        Assert.Equal((2, ""), (code, output));
        foreach (string says in (string[])
        [
            $"--input = {text}: {text} has no column \"boddy\"; it has \"title\", \"body\"", "--input = /no/such.txt: The file or folder /no/such.txt does not exist",
            $"--input = {_folder["full"]}: ", "--vocabulary_size = 200: The vocabulary size 200 is too small", "--special_tokens = user,,: Each special token must be given once and must not be empty", "put marks around it, as in <|user|>",
            "--minimum_frequency = -1: give a whole number", $"--out = {full}: the folder is there and not empty", "there is no option --vocab",
        ])
            Assert.Contains(says, errors, StringComparison.Ordinal);
        Assert.Equal("{}", File.ReadAllText(Path.Combine(full, "tokenizer.json")));
    }

    [Fact]
    public async Task A_source_without_text_leaves_nothing_behind()
    {
        (int code, _, string errors) = await RunAsync("train", "--input", Write("a.jsonl", "{\"text\": \"\"}\n{\"text\": 3}\n"), "--vocabulary_size", "300", "--out", _folder["new/ours"]);
        Assert.Equal(2, code);
        Assert.Contains("the input holds no text", errors, StringComparison.Ordinal);
        Assert.Contains("row 2: there is no text in \"text\" but a number", errors, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder["new"]));
    }

    [Fact]
    public async Task Interrupted_it_leaves_nothing_behind()
    {
        string line = JsonSerializer.Serialize(new { text = string.Join(' ', StoryGenerator.Stories(1).Take(100)) }) + "\n";
        File.WriteAllText(_folder["a.jsonl"], new StringBuilder().Insert(0, line, (60 << 20) / line.Length).ToString());
        using NopeGptProcess train = new("tokenizer", "train", "--input", _folder["a.jsonl"], "--vocabulary_size", "300", "--out", _folder["new/ours"]);
        await train.SaysAsync("counting words");
        Assert.True(Directory.Exists(_folder["new"]));
        train.Signal("INT");
        (int code, _, string errors) = await train.EndAsync();
        Assert.Equal(130, code);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
        Assert.Equal(["a.jsonl"], Directory.EnumerateFileSystemEntries(_folder.Path).Select(Path.GetFileName));
    }

    [Fact]
    public async Task Tokenizers_are_compared_on_the_same_text()
    {
        string[] stories = [.. StoryGenerator.Stories(8).Take(60)];
        string file = Write("a.jsonl", JsonLines(stories, "text"));
        Tokenizer bytes = BytePairTrainer.Train([], 257), ours = BytePairTrainer.Train(stories, 500);
        bytes.Save(_folder["bytes"]);
        ours.Save(_folder["root/tokenizers/ours"]);
        string[] named = ["compare", "--tokenizers", $"ours,{_folder["bytes"]}", "cl100k_base", "--root", _folder["root"], "--input", file];
        (int code, string output, string errors) = await RunAsync([.. named, "--json"]);
        Assert.True(code == 0, errors);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        IReadOnlyList<Compression> expected = TokenizerComparison.Compare(stories, [("ours", ours), (_folder["bytes"], bytes), ("cl100k_base", Tokenizer.Load("cl100k_base"))]);
        Assert.Equal((60, expected[0].Bytes), (json.GetProperty("documents").GetInt32(), json.GetProperty("bytes").GetInt64()));
        Assert.Equal(expected.Select(e => (e.Name, e.VocabularySize, e.Tokens, e.BytesPerToken, e.Ratio, e.Changed)), json.GetProperty("tokenizers").EnumerateArray().Select(t =>
            ((string, int, long, double, double, long))(t.GetProperty("name").GetString()!, t.GetProperty("vocabulary_size").GetInt32(), t.GetProperty("tokens").GetInt64(), t.GetProperty("bytes_per_token").GetDouble(), t.GetProperty("ratio").GetDouble(), t.GetProperty("lossy_documents").GetInt64())));
        (code, output, _) = await RunAsync(named);
        Assert.Equal(0, code);
        Assert.Matches(@"ours +500 +[\d,]+ +\d\.\d{3} +0\.\d{3} +0\n", output);
    }

    [Fact]
    public async Task A_comparison_takes_of_each_file_its_share()
    {
        string[] stories = [.. StoryGenerator.Stories(8).Take(400)];
        Write("in/a.txt", string.Join("\n<|endoftext|>\n", stories[..100]));
        Write("in/b.jsonl", JsonLines(stories[100..], "text"));
        (int code, string output, string errors) = await RunAsync("compare", "--tokenizers", "cl100k_base", "--input", _folder["in"], "--max_bytes", "20001", "--json");
        Assert.True(code == 0, errors);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        Assert.InRange(json.GetProperty("bytes").GetInt64(), 19_990, 20_001);
        double share = (double)new FileInfo(_folder["in/a.txt"]).Length / (new FileInfo(_folder["in/a.txt"]).Length + new FileInfo(_folder["in/b.jsonl"]).Length);
        // As many documents as fill each file's share, the last of each cut.
        Assert.Equal(Fill(stories[..100], share * 20_001) + Fill(stories[100..], (1 - share) * 20_001), json.GetProperty("documents").GetInt32());

        static int Fill(string[] texts, double bytes)
        {
            int count = 0;
            for (; bytes >= 1; count++) bytes -= Encoding.UTF8.GetByteCount(texts[count]);
            return count;
        }
    }

    [Fact]
    public async Task Every_tokenizer_that_cannot_be_loaded_is_named()
    {
        (int code, _, string errors) = await RunAsync("compare", "--tokenizers", "cl100k_bas,o200k_base,nothing", "--input", "/no/such", "--max_bytes", "0");
        Assert.Equal(2, code);
        foreach (string says in (string[])["--tokenizers = cl100k_bas: there is no such tokenizer (did you mean cl100k_base?)", "--tokenizers = nothing: there is no such tokenizer", "--input = /no/such: ", "--max_bytes = 0: give a whole number"])
            Assert.Contains(says, errors, StringComparison.Ordinal);
    }
}
