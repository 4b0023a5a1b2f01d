using Microsoft.Playwright;

namespace NopeGpt.Browser.Tests;

/// <summary>A page with a record of everything that went wrong in it.</summary>
internal sealed class Window : IAsyncDisposable
{
    private readonly IBrowserContext _context;
    private readonly List<string> _mistakes = [];

    public Window(IBrowserContext context, IPage page)
    {
        _context = context;
        Page = page;
        page.Console += (_, message) => { if (message.Type is "error" or "warning") Note($"console {message.Type}: {message.Text}"); };
        page.PageError += (_, error) => Note("page error: " + error);
        page.Response += (_, response) => { if (response.Status >= 400) Note($"{response.Status} {response.Url}"); };
    }

    public IPage Page { get; }

    /// <summary>Errors and warnings of the console, exceptions, and answers of 400 and above.</summary>
    public IReadOnlyList<string> Mistakes
    {
        get { lock (_mistakes) return [.. _mistakes]; }
    }

    /// <summary>How much wider the page is than its window, in pixels.</summary>
    public Task<int> OverflowAsync() => Page.EvaluateAsync<int>("() => document.documentElement.scrollWidth - document.documentElement.clientWidth");

    public async ValueTask DisposeAsync() => await _context.DisposeAsync();

    private void Note(string mistake) { lock (_mistakes) _mistakes.Add(mistake); }
}
