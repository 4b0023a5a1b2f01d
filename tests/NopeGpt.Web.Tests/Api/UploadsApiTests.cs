using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;
using NopeGpt.Web.Uploads;

namespace NopeGpt.Web.Tests.Api;

[Collection("dashboard")]
public sealed class UploadsApiTests(DashboardFixture dashboard) : IDisposable
{
    private string Folder => dashboard.Store.UploadsFolder;

    // Each test begins and ends with an empty folder.
    public void Dispose()
    {
        if (Directory.Exists(Folder)) Directory.Delete(Folder, recursive: true);
    }

    [Fact]
    public async Task A_file_is_sent_as_a_body_listed_shown_and_deleted()
    {
        byte[] bytes = Bytes(300_000, seed: 1);
        (HttpResponseMessage answer, JsonElement body) = await SendAsync("my texts (1).jsonl.gz", bytes);
        Assert.Equal((HttpStatusCode.Created, "/api/uploads/my%20texts%20%281%29.jsonl.gz"), (answer.StatusCode, answer.Headers.Location!.OriginalString));
        string path = Path.Combine(Folder, "my texts (1).jsonl.gz");
        Assert.Equal(("my texts (1).jsonl.gz", path, 300_000, Hash(bytes)), (body.GetProperty("name").GetString(), body.GetProperty("path").GetString(), body.GetProperty("bytes").GetInt32(), body.GetProperty("sha256").GetString()));
        Assert.Equal(bytes, await File.ReadAllBytesAsync(path));

        (_, JsonElement list) = await dashboard.SendAsync(HttpMethod.Get, "/api/uploads");
        JsonElement only = Assert.Single(list.EnumerateArray());
        Assert.Equal((path, 300_000), (only.GetProperty("path").GetString(), only.GetProperty("bytes").GetInt32()));
        (HttpResponseMessage shown, JsonElement one) = await dashboard.SendAsync(HttpMethod.Get, answer.Headers.Location.OriginalString);
        Assert.Equal((HttpStatusCode.OK, 300_000), (shown.StatusCode, one.GetProperty("bytes").GetInt32()));

        using HttpResponseMessage deleted = await dashboard.Http.DeleteAsync(answer.Headers.Location.OriginalString);
        Assert.Equal(HttpStatusCode.NoContent, deleted.StatusCode);
        Assert.False(File.Exists(path));
        (HttpResponseMessage gone, _) = await dashboard.SendAsync(HttpMethod.Delete, answer.Headers.Location.OriginalString);
        Assert.Equal(HttpStatusCode.NotFound, gone.StatusCode);
    }

    [Fact]
    public async Task A_form_brings_its_one_file_under_its_own_name_or_the_one_in_the_address()
    {
        byte[] bytes = Bytes(5000, seed: 2);
        foreach ((string address, string name) in new[] { ("/api/uploads", "own.txt"), ("/api/uploads?name=other.csv", "other.csv") })
        {
            using MultipartFormDataContent form = new() { { new StringContent("a field"), "comment" }, { new ByteArrayContent(bytes), "file", "own.txt" } };
            (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(HttpMethod.Post, address, form);
            Assert.Equal((HttpStatusCode.Created, name, Hash(bytes)), (answer.StatusCode, body.GetProperty("name").GetString(), body.GetProperty("sha256").GetString()));
            Assert.Equal(bytes, await File.ReadAllBytesAsync(Path.Combine(Folder, name)));
        }
    }

    [Fact]
    public async Task A_form_without_a_file_with_several_or_broken_off_leaves_nothing()
    {
        using MultipartFormDataContent none = new() { { new StringContent("a field"), "comment" } };
        await RefusedAsync(HttpStatusCode.BadRequest, "no file", "/api/uploads", none);
        using MultipartFormDataContent two = new() { { new ByteArrayContent(Bytes(50, 3)), "file", "a.txt" }, { new ByteArrayContent(Bytes(50, 4)), "file", "b.txt" } };
        await RefusedAsync(HttpStatusCode.BadRequest, "several files", "/api/uploads", two);
        using ByteArrayContent broken = new("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhalf"u8.ToArray());
        broken.Headers.ContentType = MediaTypeHeaderValue.Parse("multipart/form-data; boundary=x");
        await RefusedAsync(HttpStatusCode.BadRequest, "did not arrive whole", "/api/uploads", broken);
        using ByteArrayContent unbounded = new([1]);
        unbounded.Headers.ContentType = MediaTypeHeaderValue.Parse("multipart/form-data");
        await RefusedAsync(HttpStatusCode.BadRequest, "boundary", "/api/uploads", unbounded);
    }

    [Theory]
    [InlineData("../x.txt")]
    [InlineData("..%2f..%2fx.txt")]
    [InlineData("/etc/x.txt")]
    [InlineData("a/b.txt")]
    [InlineData("a%5Cb.txt")]
    [InlineData("..txt")]
    [InlineData(".hidden.txt")]
    [InlineData("-o.txt")]
    [InlineData("x*.txt")]
    [InlineData("x%00.txt")]
    [InlineData("x%0A.txt")]
    [InlineData("x%E2%80%AE.txt")]
    [InlineData("")]
    public async Task A_name_that_is_more_than_a_name_is_refused(string name) => await RefusedAsync(HttpStatusCode.BadRequest, "name", $"/api/uploads?name={name}", new ByteArrayContent([1]));

    [Fact]
    public async Task A_name_that_no_file_system_takes_is_refused() => await RefusedAsync(HttpStatusCode.BadRequest, "150 bytes", $"/api/uploads?name={new string('x', 147)}.txt", new ByteArrayContent([1]));

    [Theory]
    [InlineData("x.exe", false)]
    [InlineData("x", false)]
    [InlineData("x.gz", false)]
    [InlineData("x.txt.zip", false)]
    [InlineData("txt", false)]
    [InlineData("x.txt", true)]
    [InlineData("X.JSONL.GZ", true)]
    [InlineData("x.json.zst", true)]
    [InlineData("x.csv", true)]
    [InlineData("x.parquet", true)]
    [InlineData("Märchen und 狐.txt", true)]
    public async Task Only_files_that_can_be_read_are_taken(string name, bool taken)
    {
        if (taken) Assert.Equal(HttpStatusCode.Created, (await SendAsync(name, [1])).Answer.StatusCode);
        else await RefusedAsync(HttpStatusCode.UnsupportedMediaType, ".parquet", $"/api/uploads?name={name}", new ByteArrayContent([1]));
    }

    [Fact]
    public async Task A_file_of_the_same_name_stays_unless_it_is_to_be_replaced()
    {
        (byte[] first, byte[] second) = (Bytes(1000, 5), Bytes(2000, 6));
        await SendAsync("x.txt", first);
        await RefusedAsync(HttpStatusCode.Conflict, "replace=true", "/api/uploads?name=x.txt", new ByteArrayContent(second), left: 1);
        await RefusedAsync(HttpStatusCode.BadRequest, "true or false", "/api/uploads?name=x.txt&replace=maybe", new ByteArrayContent(second), left: 1);
        Assert.Equal(first, await File.ReadAllBytesAsync(Path.Combine(Folder, "x.txt")));
        Assert.Equal(HttpStatusCode.Created, (await SendAsync("x.txt&replace=true", second)).Answer.StatusCode);
        Assert.Equal(second, await File.ReadAllBytesAsync(Path.Combine(Folder, "x.txt")));
    }

    [Fact]
    public async Task Of_several_at_once_under_one_name_one_wins_and_it_is_whole()
    {
        byte[][] files = [.. Enumerable.Range(0, 8).Select(i => Bytes(200_000, seed: 10 + i))];
        (HttpResponseMessage Answer, JsonElement Body)[] answers = await Task.WhenAll(files.Select(f => SendAsync("same.txt", f)));
        JsonElement winner = Assert.Single(answers, a => a.Answer.StatusCode == HttpStatusCode.Created).Body;
        Assert.All(answers.Where(a => a.Answer.StatusCode != HttpStatusCode.Created), a => Assert.Equal(HttpStatusCode.Conflict, a.Answer.StatusCode));
        Assert.Equal(winner.GetProperty("sha256").GetString(), Hash(await File.ReadAllBytesAsync(Path.Combine(Folder, "same.txt"))));
        Assert.Single(Left());
    }

    [Fact]
    public async Task Several_at_once_under_their_own_names_are_all_whole()
    {
        byte[][] files = [.. Enumerable.Range(0, 8).Select(i => Bytes(200_000, seed: 20 + i))];
        await Task.WhenAll(files.Select((f, i) => SendAsync($"{i}.txt", f)));
        for (int i = 0; i < files.Length; i++) Assert.Equal(files[i], await File.ReadAllBytesAsync(Path.Combine(Folder, $"{i}.txt")));
    }

    [Fact]
    public async Task A_file_as_large_as_allowed_is_taken_and_one_byte_more_is_not_however_it_is_sent()
    {
        const int Most = DashboardFixture.MostUploadedBytes;
        Assert.Equal(HttpStatusCode.Created, (await SendAsync("most.txt", Bytes(Most, 30))).Answer.StatusCode);
        byte[] more = Bytes(Most + 1, 31);
        await RefusedAsync(HttpStatusCode.RequestEntityTooLarge, $"{Most} bytes", "/api/uploads?name=more.txt", new ByteArrayContent(more), left: 1);
        // Without a length only the counting shows it.
        using Unannounced unannounced = new(more);
        await RefusedAsync(HttpStatusCode.RequestEntityTooLarge, "Uploads:MaximumBytes", "/api/uploads?name=more.txt", unannounced, left: 1);
        using MultipartFormDataContent form = new() { { new ByteArrayContent(more), "file", "more.txt" } };
        await RefusedAsync(HttpStatusCode.RequestEntityTooLarge, $"{Most} bytes", "/api/uploads", form, left: 1);
        using MultipartFormDataContent fits = new() { { new ByteArrayContent(more[..Most]), "file", "fits.txt" } };
        Assert.Equal(HttpStatusCode.Created, (await dashboard.SendAsync(HttpMethod.Post, "/api/uploads", fits)).Answer.StatusCode);
    }

    [Fact]
    public async Task An_empty_file_is_refused() => await RefusedAsync(HttpStatusCode.BadRequest, "empty", "/api/uploads?name=x.txt", new ByteArrayContent([]));

    [Fact]
    public async Task A_sender_that_leaves_in_the_middle_leaves_nothing()
    {
        using (TcpClient client = new())
        {
            await client.ConnectAsync(dashboard.Url.Host, dashboard.Url.Port);
            string head = $"POST /api/uploads?name=half.txt HTTP/1.1\r\nHost: {dashboard.Url.Authority}\r\nContent-Length: 500000\r\n\r\n";
            await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes(head + new string('x', 1000)));
            await Wait.UntilAsync(() => Left().Any(f => new FileInfo(Path.Combine(Folder, f)) is { Exists: true, Length: >= 1000 }), "the beginning of the file on the disk");
            (_, JsonElement list) = await dashboard.SendAsync(HttpMethod.Get, "/api/uploads");
            Assert.Empty(list.EnumerateArray());
        }
        await Wait.UntilAsync(() => Left().Length == 0, "the half file gone");
    }

    [Fact]
    public async Task A_page_of_another_site_cannot_send_files()
    {
        using HttpRequestMessage request = new(HttpMethod.Post, "/api/uploads?name=x.txt") { Content = new ByteArrayContent([1]) };
        request.Headers.Add("Origin", "http://elsewhere.example");
        using HttpResponseMessage answer = await dashboard.Http.SendAsync(request);
        Assert.Equal(HttpStatusCode.Forbidden, answer.StatusCode);
        Assert.Empty(Left());
    }

    [Fact]
    public async Task A_file_that_a_run_reads_is_not_deleted_under_it()
    {
        await SendAsync("needed.txt", "some text"u8.ToArray());
        string path = Path.Combine(Folder, "needed.txt");
        using StringContent run = new(JsonSerializer.Serialize(new { kind = "prepare", prepare = new { dataset = "needs-it", source = path } }), Encoding.UTF8, "application/json");
        (_, JsonElement added) = await dashboard.SendAsync(HttpMethod.Post, "/api/runs", run);
        string id = added.GetProperty("id").GetString()!;
        (HttpResponseMessage refused, JsonElement why) = await dashboard.SendAsync(HttpMethod.Delete, "/api/uploads/needed.txt");
        Assert.Equal(HttpStatusCode.Conflict, refused.StatusCode);
        Assert.Contains(id, why.GetProperty("detail").GetString(), StringComparison.Ordinal);
        await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/stop?kill=true");
        await Wait.UntilAsync(() => dashboard.Service<RunQueue>().FindAsync(id).GetAwaiter().GetResult()!.Ended is not null, "the end of the run");
        using HttpResponseMessage again = await dashboard.Http.DeleteAsync("/api/uploads/needed.txt");
        Assert.Equal(HttpStatusCode.NoContent, again.StatusCode);
        Assert.False(File.Exists(path));
    }

    [Fact]
    public async Task A_start_clears_what_an_earlier_dashboard_left_half_done()
    {
        using TemporaryFolder folder = new();
        Store store = new(folder.Path);
        Directory.CreateDirectory(store.UploadsFolder);
        foreach (string name in new[] { ".0123.part", "whole.txt", "a.part.txt" }) await File.WriteAllTextAsync(Path.Combine(store.UploadsFolder, name), "text");
        UploadStore uploads = new(store, new UploadOptions());
        Assert.Equal(["a.part.txt", "whole.txt"], uploads.List().Select(f => f.Name));
        await uploads.StartAsync(CancellationToken.None);
        Assert.Equal(["a.part.txt", "whole.txt"], Directory.EnumerateFiles(store.UploadsFolder).Select(Path.GetFileName).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task What_the_disk_cannot_hold_is_refused_before_it_is_sent()
    {
        using TemporaryFolder folder = new();
        UploadStore uploads = new(new Store(folder.Path), new UploadOptions { MaximumBytes = long.MaxValue });
        using MemoryStream content = new([1]);
        UploadException refusal = await Assert.ThrowsAsync<UploadException>(() => uploads.SaveAsync("x.txt", content, long.MaxValue - 1, replace: false));
        Assert.Equal(507, refusal.Status);
        Assert.Contains("free", refusal.Message, StringComparison.Ordinal);
        Assert.Equal(0, content.Position);
    }

    [Fact]
    public async Task A_folder_that_may_not_be_written_is_told()
    {
        using TemporaryFolder folder = new();
        Store store = new(folder.Path);
        await File.WriteAllTextAsync(store.UploadsFolder, "a file where the folder should be");
        using MemoryStream content = new([1]);
        await Assert.ThrowsAnyAsync<Exception>(() => new UploadStore(store, new UploadOptions()).SaveAsync("x.txt", content, null, replace: false));
        Assert.Equal("a file where the folder should be", await File.ReadAllTextAsync(store.UploadsFolder));
    }

    [Theory]
    [InlineData("", 2_000_000_000L)]
    [InlineData("5", 5L)]
    [InlineData("0", null)]
    [InlineData("-1", null)]
    [InlineData("2 GB", null)]
    public void The_limit_is_a_whole_number_of_bytes(string text, long? bytes)
    {
        Microsoft.Extensions.Configuration.IConfiguration settings = new Microsoft.Extensions.Configuration.ConfigurationManager { ["Uploads:MaximumBytes"] = text };
        if (bytes is { } limit) Assert.Equal(limit, UploadOptions.Read(settings).MaximumBytes);
        else Assert.Contains("Uploads:MaximumBytes", Assert.Throws<UserException>(() => UploadOptions.Read(settings)).Message, StringComparison.Ordinal);
    }

    private string[] Left() => Directory.Exists(Folder) ? [.. Directory.EnumerateFiles(Folder).Select(f => Path.GetFileName(f))] : [];

    private Task<(HttpResponseMessage Answer, JsonElement Body)> SendAsync(string name, byte[] bytes) => dashboard.SendAsync(HttpMethod.Post, $"/api/uploads?name={name}", new ByteArrayContent(bytes));

    private async Task RefusedAsync(HttpStatusCode status, string says, string address, HttpContent content, int left = 0)
    {
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(HttpMethod.Post, address, content);
        Assert.Equal((status, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
        Assert.Contains(says, body.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal(left, Left().Length);
        Assert.False(File.Exists(Path.Combine(dashboard.Store.Root, "x.txt")));
    }

    private static byte[] Bytes(int count, int seed)
    {
        byte[] bytes = new byte[count];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    /// <summary>Sent in chunks, whose sum the receiver does not know before.</summary>
    private sealed class Unannounced(byte[] bytes) : HttpContent
    {
        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) => stream.WriteAsync(bytes).AsTask();

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}
