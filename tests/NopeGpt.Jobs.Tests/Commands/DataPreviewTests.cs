using System.Text;
using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tests;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>`data preview` as a process.</summary>
public sealed class DataPreviewTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private string[] Root => ["--root", prepared.Store.Root];

    private Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments) => NopeGptProcess.RunAsync(["data", "preview", .. arguments, .. Root]);

    private async Task<JsonElement[]> RowsAsync(params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync([.. arguments, "--json"]);
        Assert.True(code == 0, errors);
        return [.. JsonDocument.Parse(output).RootElement.GetProperty("rows").EnumerateArray()];
    }

    private async Task<string> TextAsync(params string[] arguments)
    {
        (int code, string output, string errors) = await RunAsync(arguments);
        Assert.True(code == 0, errors);
        return output;
    }

    private static IEnumerable<TokenPreview> Tokens(JsonElement row) => row.GetProperty("tokens").EnumerateArray()
        .Select(t => new TokenPreview(t.GetProperty("id").GetInt32(), t.GetProperty("text").GetString()!, t.GetProperty("label").GetBoolean(), t.GetProperty("sequence").GetInt32()));

    private Tokenizer TokenizerOf(string dataset) => Tokenizer.Load(prepared.Store.DatasetFolder(dataset)).WithChatMarkers() is { } chat && dataset == PreparedStore.Talks ? chat : Tokenizer.Load(prepared.Store.DatasetFolder(dataset));

    private string Write(string name, string content)
    {
        string path = prepared[$"{Guid.NewGuid():n}/{name}"];
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, content);
        return path;
    }

    [Fact]
    public async Task A_data_set_shows_the_rows_of_a_runs_first_batch()
    {
        using TokenFile file = TokenFile.Open(prepared.Store.DatasetTokens(PreparedStore.Stories));
        Tokenizer tokenizer = TokenizerOf(PreparedStore.Stories);
        DataConfig usual = new();
        JsonElement[] rows = await RowsAsync(PreparedStore.Stories, "--num_eval_samples", "3");
        Batch batch = new BatchSource(file, 3, usual.TokensPerSample, new RunConfig().Seed, holdoutSamples: 3).Training(0);
        Assert.Equal(3, rows.Length);
        for (int row = 0; row < 3; row++) Assert.Equal(TokenPreview.Row(batch, row, tokenizer), Tokens(rows[row]));

        rows = await RowsAsync(PreparedStore.Stories, "--count", "2", "--tokens-per-sample=20", "--seed", "9", "--num_eval_samples", "7", "--unpacked");
        batch = new BatchSource(file, new BatchOptions { BatchSize = 2, TokensPerSample = 20, Seed = 9, HoldoutSamples = 7, Packed = false, PaddingId = tokenizer.EndOfTextId }).Training(0);
        for (int row = 0; row < 2; row++) Assert.Equal(TokenPreview.Row(batch, row, tokenizer), Tokens(rows[row]));
    }

    [Fact]
    public async Task A_file_with_few_tokens_is_shown_without_a_holdout()
    {
        string file = Write("a.txt", "x");
        Tokenizer tokenizer = TokenizerOf(PreparedStore.Stories);
        new TokenPreparation(tokenizer).Run(Path.ChangeExtension(file, ".bin"), Source.Open(file), new ColumnMapping { Text = "text" });
        JsonElement[] rows = await RowsAsync(Path.ChangeExtension(file, ".bin"), "--count", "1", "--tokenizer", prepared.Store.DatasetFolder(PreparedStore.Stories));
        Assert.Equal([.. tokenizer.Encode("x"), tokenizer.EndOfTextId], Tokens(rows[0]).Select(t => t.Id));
        (int code, _, string errors) = await RunAsync(Path.ChangeExtension(file, ".bin"));
        Assert.Equal(2, code);
        Assert.Contains("name its tokenizer with --tokenizer", errors, StringComparison.Ordinal);
        (code, _, errors) = await RunAsync(PreparedStore.Stories, "--tokens_per_sample", "1000000");
        Assert.Equal(2, code);
        Assert.Contains("use more text, shorter samples or a smaller holdout", errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false, ChatLabels.Reply, "reply")]
    [InlineData(true, ChatLabels.ReplyWithoutHeader, "reply_without_header")]
    [InlineData(false, ChatLabels.Everything, "everything")]
    public async Task Conversations_show_what_a_fine_tuning_run_sees(bool packing, ChatLabels labels, string word)
    {
        using ChatFile file = ChatFile.Open(prepared.Store.DatasetTokens(PreparedStore.Talks));
        Tokenizer tokenizer = TokenizerOf(PreparedStore.Talks);
        JsonElement[] rows = await RowsAsync([PreparedStore.Talks, "--tokens_per_sample", "300", "--seed", "4", "--loss_on", word, .. packing ? (string[])["--packing"] : []]);
        ChatBatchOptions options = new() { BatchSize = 3, Packing = packing, Seed = 4, HoldoutSamples = new DataConfig().NumEvalSamples, Sample = new() { MaxTokens = 300, Labels = labels } };
        Batch batch = new ChatBatchSource(file, tokenizer.EndOfTextId, options).Training(0);
        for (int row = 0; row < 3; row++) Assert.Equal(TokenPreview.Row(batch, row, tokenizer), Tokens(rows[row]));
        Assert.Equal(packing, rows.Any(row => Tokens(row).Any(t => t.Sequence > 0)));
    }

    [Fact]
    public async Task What_the_loss_sees_is_marked_and_green_where_colours_are_wanted()
    {
        string output = await TextAsync(PreparedStore.Talks, "--count", "2", "--packing", "--tokens_per_sample", "400", "--max_characters", "0");
        Assert.Contains("<|im_start|>user\nTell story ", output, StringComparison.Ordinal);
        Assert.Contains("<|im_end|>\n«<|im_start|>assistant\n", output, StringComparison.Ordinal);
        Assert.Contains("── sequence 1 of the row ──", output, StringComparison.Ordinal);
        Assert.DoesNotContain("\e[", output, StringComparison.Ordinal);
        string coloured = await TextAsync(PreparedStore.Talks, "--count", "2", "--packing", "--tokens_per_sample", "400", "--max_characters", "0", "--color", "always");
        Assert.Contains("\e[32m<|im_start|>assistant\n", coloured, StringComparison.Ordinal);
        Assert.DoesNotContain('«', coloured);
    }

    [Fact]
    public async Task A_sources_first_documents_are_shown_as_text_or_as_tokens()
    {
        string file = Write("a.jsonl", "{\"body\": \"One \\u001b[31mred\\n\\tday\"}\noh\n{\"body\": \"\"}\n{\"body\": \"Two\"}\n{\"body\": \"Three\"}\n");
        (int code, string output, string errors) = await RunAsync(file, "--count", "2", "--text_column", "body");
        Assert.Equal((0, "── document 0 ──\nOne ␛[31mred\n\tday\n\n── document 1 ──\nTwo\n\n"), (code, output));
        Assert.Contains($"{file}, row 2: this is not JSON", errors, StringComparison.Ordinal);
        Assert.Equal(["One \e[31mred\n\tday", "Two"], (await RowsAsync(file, "--count", "2", "--columns", "text=body")).Select(row => row.GetProperty("text").GetString()));

        Tokenizer tokenizer = TokenizerOf(PreparedStore.Stories);
        string stories = prepared.Store.DatasetFolder(PreparedStore.Stories);
        JsonElement row = (await RowsAsync(file, "--tokenizer", stories, "--text_column", "body"))[1];
        Assert.Equal([.. tokenizer.Encode("Two"), tokenizer.EndOfTextId], Tokens(row).Select(t => t.Id));
        Assert.Equal([false, .. tokenizer.Encode("Two").Select(_ => true)], Tokens(row).Select(t => t.Label));
        output = await TextAsync(file, "--tokenizer", stories, "--text_column", "body", "--tokens");
        Assert.Contains($"[{string.Join("][", Tokens(row).Select(t => $"{t.Text.Replace(' ', '·')} {t.Id}"))}]", output, StringComparison.Ordinal);
        Assert.Contains("── document 1 ──\nTw … 1 more characters\n", await TextAsync(file, "--text_column", "body", "--max_characters", "2"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_sources_conversations_and_pairs_are_shown_with_their_labels()
    {
        string talks = prepared.Store.DatasetFolder(PreparedStore.Talks);
        string output = await TextAsync(prepared.TalksSource, "--count", "1");
        Assert.StartsWith($"── {prepared.TalksSource}, row 1 ──\nuser: Tell story 0\nassistant: ", output, StringComparison.Ordinal);
        Assert.Contains("«<|im_start|>assistant\n", await TextAsync(prepared.TalksSource, "--count", "1", "--tokenizer", talks), StringComparison.Ordinal);
        string pairs = Write("pairs.json", """[{"prompt": "Hi", "chosen": "Good day", "rejected": "Go"}, {"prompt": "Hi", "chosen": "Same"}, {"prompt": "You", "chosen": "Me", "rejected": "No"}]""");
        JsonElement[] rows = await RowsAsync(pairs, "--tokenizer", talks, "--count", "2", "--labels");
        Assert.Equal(["user: Hi\nassistant: Good day", "user: Hi\nassistant: Go", "user: You\nassistant: Me", "user: You\nassistant: No"], rows.Select(row => row.GetProperty("text").GetString()));
        Assert.Equal("<|im_start|>assistant\nGood day\n<|im_end|>\n", string.Concat(Tokens(rows[0]).Where(t => t.Label).Select(t => t.Text)));
    }

    [Fact]
    public async Task Raw_files_several_files_and_stories_can_be_shown()
    {
        Tokenizer tokenizer = TokenizerOf(PreparedStore.Stories);
        string raw = Write("train.bin", ""), stories = prepared.Store.DatasetFolder(PreparedStore.Stories);
        int[] ids = [.. tokenizer.Encode("Once upon a time there was a cat.")];
        await File.WriteAllBytesAsync(raw, [.. ids.SelectMany(id => BitConverter.GetBytes((ushort)id))]);
        JsonElement[] rows = await RowsAsync(raw, "--raw_tokens", "--tokenizer", stories, "--count", "1");
        Assert.Equal(ids, Tokens(rows[0]).Select(t => t.Id));
        Assert.Equal(4, (await RowsAsync(PreparedStore.Stories, prepared.Store.DatasetTokens(PreparedStore.Stories), "--count", "4")).Length);
        string first = StoryGenerator.Stories(1337).First();
        // The name of a data set comes first; without one it is the source.
        (_, string output, _) = await NopeGptProcess.RunAsync("data", "preview", "stories", "--count", "1", "--json", "--root", prepared[$"{Guid.NewGuid():n}"]);
        Assert.Equal(first, JsonDocument.Parse(output).RootElement.GetProperty("rows")[0].GetProperty("text").GetString());
    }

    [Fact]
    public async Task A_data_set_of_the_Hub_is_shown_and_trains_a_tokenizer()
    {
        using HubServer hub = new();
        string[] stories = [.. StoryGenerator.Stories(6).Take(20)];
        hub.Publish("someone/stories", new Dictionary<string, byte[]> { ["data/train.jsonl"] = Encoding.UTF8.GetBytes(string.Concat(stories.Select(s => JsonSerializer.Serialize(new { text = s }) + "\n"))) });
        Dictionary<string, string> environment = new() { ["NOPEGPT_Hub__Endpoint"] = hub.Endpoint.ToString() };
        string root = prepared[$"{Guid.NewGuid():n}"];
        using NopeGptProcess preview = new(environment, ["data", "preview", "hub:someone/stories", "--count", "2", "--json", "--root", root]);
        (int code, string output, string errors) = await preview.EndAsync();
        Assert.True(code == 0, errors);
        Assert.Equal(stories[..2], JsonDocument.Parse(output).RootElement.GetProperty("rows").EnumerateArray().Select(row => row.GetProperty("text").GetString()));
        using NopeGptProcess train = new(environment, ["tokenizer", "train", "--input", "hub:someone/stories", "--vocabulary_size", "300", "--out", Path.Combine(root, "tokenizers", "ours"), "--root", root]);
        (code, _, errors) = await train.EndAsync();
        Assert.True(code == 0, errors);
        Assert.Equal(BytePairTrainer.Train(stories, 300).Hash, Tokenizer.Load("ours", [Path.Combine(root, "tokenizers")]).Hash);
        using NopeGptProcess missing = new(environment, ["data", "preview", "hub:someone/nothing", "--root", root]);
        (code, _, errors) = await missing.EndAsync();
        Assert.Equal(2, code);
        Assert.Contains("someone/nothing", errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Everything_that_is_wrong_is_named_at_once()
    {
        (int code, string output, string errors) = await RunAsync("nothing", "/no/such.jsonl", PreparedStore.Stories, "--raw", "--labels", "--count", "0", "--kind", "book", "--columns", "texts=a", "--loss_on", "all", "--color", "red", "--packing", "--unpacked", "--cuont", "3");
        Assert.Equal((2, ""), (code, output));
        foreach (string says in (string[])
        [
            "SOURCE = nothing: there is no such file, folder or data set of the store", "SOURCE = /no/such.jsonl: The file or folder /no/such.jsonl does not exist", "cannot be shown together", "choose one", "--count = 0", "--kind = book: choose auto, text, chat or preference",
            "--columns = texts=a: The column mapping has no part \"texts\"", "--loss_on = all: choose reply", "--color = red: choose auto", "--packing is for conversations", "there is no option --cuont: did you mean --count?",
        ])
            Assert.Contains(says, errors, StringComparison.Ordinal);
        (code, _, errors) = await RunAsync(prepared.TalksSource, "--labels");
        Assert.Equal(2, code);
        Assert.Contains("--tokenizer is missing", errors, StringComparison.Ordinal);
        (code, _, errors) = await RunAsync(prepared.TalksSource, "--text_column", "body");
        Assert.Equal(2, code);
        Assert.Contains($"{prepared.TalksSource} has no column \"body\"; it has \"messages\"", errors, StringComparison.Ordinal);
    }
}
