"""BlockFind: an agent on a board of coloured blocks is told which one to go to.

``task`` holds the rules, ``drawing`` the pictures, ``env`` and ``vector`` the two Gymnasium environments
on top of both, ``rates`` how fast they are.
"""
