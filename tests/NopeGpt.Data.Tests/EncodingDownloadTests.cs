using System.Diagnostics;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed class EncodingDownloadTests : IDisposable
{
    private const string Name = "r50k_base", FileName = "r50k_base.tiktoken";
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private static byte[] Content => File.ReadAllBytes(Needs.Data($"tokenizers/{FileName}"));

    [NeedsFact(Needs.SharedData)]
    public void A_file_is_fetched_once_and_kept()
    {
        using ScriptedServer server = new(_ => ScriptedServer.Ok(Content));
        Tokenizer first = Tokenizer.Load(Name, [_folder["tokenizers"]], From(server));
        Tokenizer second = Tokenizer.Load(Name, [_folder["tokenizers"]], From(server));
        Assert.Equal([31373, 995], second.Encode("hello world"));
        Assert.Equal(first.Hash, second.Hash);
        Assert.Equal(["GET /encodings/r50k_base.tiktoken"], server.Requests);
        Assert.Equal([_folder[$"cache/{FileName}"]], Directory.GetFiles(_folder["cache"]));
    }

    [NeedsFact(Needs.SharedData)]
    public void A_tokenizer_json_that_names_an_encoding_has_it_fetched()
    {
        using ScriptedServer server = new(_ => ScriptedServer.Ok(Content));
        Directory.CreateDirectory(_folder["model"]);
        File.WriteAllText(_folder["model/tokenizer.json"], """{"name": "r50k_base"}""");
        Assert.Equal(50257, Tokenizer.Load(_folder["model"], [], From(server)).VocabularySize);
        Assert.Single(server.Requests);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("500")]
    [InlineData("503")]
    [InlineData("429")]
    [InlineData("truncated")]
    [InlineData("changed")]
    [InlineData("closed")]
    public void What_may_pass_is_tried_again(string trouble)
    {
        byte[] content = Content;
        using ScriptedServer server = new(request => request >= 2 ? ScriptedServer.Ok(content) : Answer(trouble, content));
        Assert.Equal(50257, Tokenizer.Load(Name, [], From(server)).VocabularySize);
        Assert.Equal(3, server.Requests.Count);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("404", 1, "the server answers 404")]
    [InlineData("403", 1, "the server answers 403")]
    [InlineData("503", 3, "in 3 attempts: the server answers 503")]
    [InlineData("changed", 3, "is not r50k_base.tiktoken (835554 bytes, SHA-256 306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930)")]
    [InlineData("page", 3, "what the server sends (18 bytes, SHA-256 ")]
    [InlineData("longer", 1, "longer than the 835554 bytes")]
    [InlineData("truncated", 3, "in 3 attempts")]
    public void What_cannot_be_fetched_is_named_with_its_hash_the_places_and_the_reason(string trouble, int requests, string reason)
    {
        byte[] content = Content;
        using ScriptedServer server = new(_ => Answer(trouble, content));
        FileNotFoundException error = Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(Name, [_folder["tokenizers"]], From(server)));
        foreach (string part in (string[])[FileName, "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", _folder["tokenizers"], _folder["cache"], $"{server.Address}{FileName} could not be downloaded", reason])
            Assert.Contains(part, error.Message, StringComparison.Ordinal);
        Assert.Equal((FileName, requests), (error.FileName, server.Requests.Count));
        Assert.False(Directory.Exists(_folder["cache"]) && Directory.EnumerateFiles(_folder["cache"]).Any());
    }

    [Fact]
    public void Without_a_connection_the_sentence_says_where_the_file_belongs()
    {
        Uri nobody;
        using (ScriptedServer server = new(_ => [])) nobody = server.Address;
        EncodingDownload download = new(_folder["cache"]) { Address = nobody, Attempts = 2, FirstWait = TimeSpan.FromMilliseconds(1) };
        string message = Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(Name, [], download)).Message;
        Assert.StartsWith($"The encoding r50k_base needs the file {FileName}, whose SHA-256 is 306cd27f", message, StringComparison.Ordinal);
        Assert.Contains($"which is not in {_folder["cache"]}; put it into one of these folders. {nobody}{FileName} could not be downloaded in 2 attempts: ", message, StringComparison.Ordinal);
    }

    [NeedsFact(Needs.SharedData)]
    public async Task Many_at_once_get_the_same_whole_file()
    {
        byte[] content = Content;
        using ScriptedServer server = new(_ => ScriptedServer.Ok(content));
        string[] paths = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() => From(server).GetAsync(Name))));
        Assert.Equal([_folder[$"cache/{FileName}"]], paths.Distinct());
        Assert.Equal(content, await File.ReadAllBytesAsync(paths[0]));
        Assert.Equal([paths[0]], Directory.GetFiles(_folder["cache"]));
    }

    [NeedsFact(Needs.SharedData)]
    public async Task A_damaged_file_in_the_folder_is_fetched_anew()
    {
        Directory.CreateDirectory(_folder["cache"]);
        await File.WriteAllBytesAsync(_folder[$"cache/{FileName}"], Content[..1000]);
        using ScriptedServer server = new(_ => ScriptedServer.Ok(Content));
        await From(server).GetAsync(Name);
        Assert.Equal(Content, await File.ReadAllBytesAsync(_folder[$"cache/{FileName}"]));
    }

    [Fact]
    public async Task Waiting_ends_when_cancelled_and_a_server_asks_for_patience()
    {
        using ScriptedServer server = new(_ => ScriptedServer.Status("429 Too Many Requests", "Retry-After: 30\r\n"));
        using CancellationTokenSource cancel = new(TimeSpan.FromMilliseconds(300));
        Stopwatch watch = Stopwatch.StartNew();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => From(server).GetAsync(Name, cancel.Token));
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), $"{watch.Elapsed}");
        Assert.Single(server.Requests);
    }

    [Fact]
    public async Task A_server_that_says_nothing_is_given_up()
    {
        using ScriptedServer server = new(_ => null);
        EncodingDownload download = new(_folder["cache"]) { Address = server.Address, Attempts = 1, Limit = TimeSpan.FromMilliseconds(200) };
        Assert.Contains("no whole answer within", (await Assert.ThrowsAsync<IOException>(() => download.GetAsync(Name))).Message, StringComparison.Ordinal);
        Assert.Contains("known are r50k_base", (await Assert.ThrowsAsync<ArgumentException>(() => download.GetAsync("gpt5"))).Message, StringComparison.Ordinal);
    }

    private EncodingDownload From(ScriptedServer server) => new(_folder["cache"]) { Address = server.Address, Attempts = 3, FirstWait = TimeSpan.FromMilliseconds(1) };

    private static byte[] Answer(string trouble, byte[] content) => trouble switch
    {
        "truncated" => ScriptedServer.Ok(content)[..^1000],
        "changed" => ScriptedServer.Ok([.. content[..^2], (byte)'9', (byte)'\n']),
        "page" => ScriptedServer.Ok("<html>Hello</html>"u8.ToArray()),
        "longer" => ScriptedServer.Ok([.. content, (byte)'\n']),
        "closed" => [],
        "404" => ScriptedServer.Status("404 Not Found"),
        "403" => ScriptedServer.Status("403 Forbidden"),
        "429" => ScriptedServer.Status("429 Too Many Requests", "Retry-After: 0\r\n"),
        "500" => ScriptedServer.Status("500 Internal Server Error"),
        _ => ScriptedServer.Status("503 Service Unavailable"),
    };
}
